"""Index and labels.csv joined: which images take part in a study, and why the others do not."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.cohort_terms import Cohort as Criteria
from protocol.study import StudySpec
from site_node.cohort.contents import UNDECODABLE, VANISHED, contents_of
from site_node.cohort.index_database import Content, IndexDatabase, IndexedImage
from site_node.cohort.labels import LabelRow, Labels
from site_node.cohort.masks import ReadMask
from site_node.cohort.quality import Noticed
from site_node.cohort.query import Facts, facts_of, unmet_criterion
from site_node.dicom.headers import InstanceHeader

UNLABELLED = "image: it has no row in labels.csv"
ORPHAN = "label: no usable image of this SOP instance UID is in the index"
OTHER_PATIENT = "image: its header and labels.csv name different patients"
SEVERAL_FRAMES = "image: it holds several frames, and this study takes single pictures"


@dataclass(frozen=True)
class Match:
    """An image that takes part, with its row of labels.csv, what is known of it, and its content.

    Of a volume, `image` is the first slice and `slices` are all files, in the order in which they lie.
    """

    image: IndexedImage
    row: LabelRow
    facts: Facts
    content: Content
    slices: tuple[Path, ...] = ()
    mask: ReadMask | None = None


def matches_of(
    database: IndexDatabase, labels: Labels, study: StudySpec, dropped: Counter[str], noticed: Noticed
) -> list[Match]:
    """Return the images that take part; each other image or row is counted in `dropped` by its reason."""
    wanted = list(_wanted(database, labels, study, dropped, noticed))
    contents = contents_of(database, [image for image, _, _ in wanted])
    matches: list[Match] = []
    for image, row, facts in wanted:
        content = contents.get(image.path)
        if content is None:
            dropped[VANISHED] += 1
        elif content.problem is not None:
            dropped[UNDECODABLE] += 1
            noticed.unreadable.add(row.patient_id)
        else:
            matches.append(Match(image, row, facts, content))
    return matches


def _wanted(
    database: IndexDatabase, labels: Labels, study: StudySpec, dropped: Counter[str], noticed: Noticed
) -> Iterator[tuple[IndexedImage, LabelRow, Facts]]:
    seen: set[str] = set()
    for image in database.pictures():
        instance = image.header.sop_instance_uid
        _notice(noticed, image, labels.rows.get(instance))
        if instance in seen:
            continue  # copies of an instance count once: the first by path
        seen.add(instance)
        row = labels.rows.get(instance)
        if row is None:
            dropped[why_no_row(image.header, study.cohort)] += instance not in labels.mentioned
            continue
        facts = facts_of(image.header, row.others)
        reason = _contradiction(image, row) or unmet_criterion(facts, study.cohort)
        if reason:
            dropped[reason] += 1
        else:
            yield image, row, facts
    dropped[ORPHAN] += len(labels.rows.keys() - seen)
    rows = labels.rows.values()
    noticed.unreadable |= {r.patient_id for r in rows if not noticed.has_seen(r.patient_id, r.sop_instance_uid)}


def why_no_row(header: InstanceHeader, criteria: Criteria) -> str:
    """Return why an image without a row does not take part: its header alone may say that the study wants others."""
    return unmet_criterion(facts_of(header, {}), criteria, passing_over_silence=True) or UNLABELLED


def _notice(noticed: Noticed, image: IndexedImage, row: LabelRow | None) -> None:
    if row is not None and image.header.patient_id in (None, row.patient_id):
        noticed.see(row.patient_id, row.sop_instance_uid)


def _contradiction(image: IndexedImage, row: LabelRow) -> str | None:
    if image.header.patient_id not in (None, row.patient_id):
        return OTHER_PATIENT
    return SEVERAL_FRAMES if image.header.frames > 1 else None
