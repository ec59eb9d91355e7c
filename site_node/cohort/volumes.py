"""The cohort of a study of volumes: labels.csv and the index joined series by series.

A row of labels.csv labels a series if it names the series (its UID in the column of instances) or any of its slices;
the rows of one series must agree. A series that makes no volume falls out with its reason (`dicom/series.py`). Of
several series of one imaging study one is used (`dicom/volume_choice.py`): a scan repeated is one scan. Several imaging
studies of a patient are several volumes, as several radiographs are several pictures.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from protocol import preprocessing_steps
from protocol.cohort_terms import Cohort as Criteria
from protocol.digest import digest_of
from protocol.preprocessing_steps import voxels_after_spacing
from protocol.study import StudySpec
from site_node.cohort.contents import UNDECODABLE, VANISHED, contents_of
from site_node.cohort.index_database import Content, IndexDatabase, IndexedImage
from site_node.cohort.labels import LabelRow, Labels
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT, Match, why_no_row
from site_node.cohort.quality import Noticed
from site_node.cohort.query import facts_of, unmet_criterion
from site_node.dicom.volume import stack_of
from site_node.dicom.volume_choice import Candidate, chosen
from site_node.errors import UnreadableError

NO_SERIES = "image: its header names no series, and this study takes volumes"
ROWS_DISAGREE = "image: its series has rows in labels.csv that contradict each other"
REPEATED_SERIES = "image: another series of the same imaging study is used instead"
NO_VOLUME = "image: its series makes no volume: "
TOO_FINE = "image: the study's preparation (Spacing) would make too many voxels of its series"
DAMAGED_FILE = "a file of it is left out by the index"
VOLUME_DIMENSIONS = 3


@dataclass(frozen=True)
class LabelledSeries:
    """The files of one series, copies left out, and the row that labels it."""

    uid: str
    images: tuple[IndexedImage, ...]
    row: LabelRow


@dataclass(frozen=True)
class _Found:
    match: Match
    candidate: Candidate


def takes_volumes(study: StudySpec) -> bool:
    """Tell whether a study's images are volumes: its size has three numbers."""
    return study.kind != "tabular" and len(study.preprocessing.size) == VOLUME_DIMENSIONS


def volume_matches_of(
    database: IndexDatabase, labels: Labels, study: StudySpec, dropped: Counter[str], noticed: Noticed
) -> list[Match]:
    """Return the series that take part, one of each imaging study; the others' files are counted by reason."""
    labelled = list(_labelled(database, labels, study.cohort, dropped, noticed))
    whole = _without_damaged(labelled, database.damaged_series(), dropped, noticed)
    wanted = [one for one in whole if _is_wanted(one, study, dropped)]
    contents = contents_of(database, [image for one in wanted for image in one.images])
    repeated: defaultdict[tuple[str, str], list[_Found]] = defaultdict(list)
    for one in wanted:
        found = _found(one, contents, dropped, noticed)
        if found is not None and _is_too_fine(found.candidate, study):
            dropped[TOO_FINE] += len(one.images)
        elif found is not None:
            study_uid = one.images[0].header.study_instance_uid or one.uid
            repeated[one.row.patient_id, study_uid].append(found)
    return [_one_of(found, dropped) for found in repeated.values()]


def _labelled(
    database: IndexDatabase, labels: Labels, criteria: Criteria, dropped: Counter[str], noticed: Noticed
) -> Iterable[LabelledSeries]:
    series: defaultdict[str, dict[str, IndexedImage]] = defaultdict(dict)
    for image in database.pictures():
        header = image.header
        row = labels.rows.get(header.sop_instance_uid)
        if row is not None and header.patient_id in (None, row.patient_id):
            noticed.see(row.patient_id, row.sop_instance_uid)
        if header.series_instance_uid is None:
            dropped[NO_SERIES] += 1
        else:  # copies of an instance count once: the first by path
            series[header.series_instance_uid].setdefault(header.sop_instance_uid, image)
    named = set(series) | {instance for images in series.values() for instance in images}
    dropped[ORPHAN] += len(labels.rows.keys() - named)
    for uid, images in sorted(series.items()):
        one = _with_row(uid, images, labels, criteria, dropped)
        if one is not None:
            yield one
    for row in labels.rows.values():
        if row.sop_instance_uid in series:
            noticed.see(row.patient_id, row.sop_instance_uid)
        elif not noticed.has_seen(row.patient_id, row.sop_instance_uid):
            noticed.unreadable.add(row.patient_id)


def _with_row(
    uid: str, images: Mapping[str, IndexedImage], labels: Labels, criteria: Criteria, dropped: Counter[str]
) -> LabelledSeries | None:
    rows = [labels.rows[name] for name in (uid, *images) if name in labels.rows]
    if not rows:
        why = why_no_row(next(iter(images.values())).header, criteria)
        dropped[why] += sum(name not in labels.mentioned for name in images)
        return None
    if len({(row.patient_id, row.label, row.findings, row.value, row.split) for row in rows}) > 1:
        dropped[ROWS_DISAGREE] += len(images)
        return None
    return LabelledSeries(uid, tuple(images.values()), replace(rows[0], sop_instance_uid=uid))


def _without_damaged(
    labelled: Iterable[LabelledSeries], damaged: Collection[str], dropped: Counter[str], noticed: Noticed
) -> Iterator[LabelledSeries]:
    for one in labelled:
        if one.uid in damaged:  # at its end no gap would show that a slice is missing
            dropped[NO_VOLUME + DAMAGED_FILE] += len(one.images)
            noticed.unreadable.add(one.row.patient_id)
        else:
            yield one


def _is_wanted(one: LabelledSeries, study: StudySpec, dropped: Counter[str]) -> bool:
    if any(image.header.patient_id not in (None, one.row.patient_id) for image in one.images):
        reason: str | None = OTHER_PATIENT
    else:
        reason = unmet_criterion(facts_of(one.images[0].header, one.row.others), study.cohort)
    if reason:
        dropped[reason] += len(one.images)
    return not reason


def _found(
    one: LabelledSeries, contents: Mapping[Path, Content], dropped: Counter[str], noticed: Noticed
) -> _Found | None:
    read = [contents.get(image.path) for image in one.images]
    if any(content is None for content in read):
        dropped[VANISHED] += len(one.images)
        return None
    if any(content is not None and content.problem is not None for content in read):
        dropped[UNDECODABLE] += len(one.images)
        noticed.unreadable.add(one.row.patient_id)
        return None
    try:
        candidate = Candidate(one.uid, stack_of([image.path for image in one.images]))
    except UnreadableError as error:
        dropped[NO_VOLUME + error.message] += len(one.images)
        return None
    order = _order(candidate)
    images = [one.images[number] for number in order]
    digests = [content.digest for number in order if (content := read[number]) is not None]
    facts = facts_of(images[0].header, one.row.others)
    slices = tuple(image.path for image in images)
    return _Found(Match(images[0], one.row, facts, Content(digest_of(digests), None), slices), candidate)


def _is_too_fine(candidate: Candidate, study: StudySpec) -> bool:
    stack = candidate.stack
    shape = (len(stack.planes), stack.planes[0].rows, stack.planes[0].columns)
    lengths_mm = [number * spacing for number, spacing in zip(shape, stack.spacing_mm, strict=True)]
    return voxels_after_spacing(study.preprocessing.steps, lengths_mm) > preprocessing_steps.MOST_VOXELS


def _order(candidate: Candidate) -> Sequence[int]:
    """Return the numbers of the files in the order in which their first slices lie."""
    return list(dict.fromkeys(plane.source for plane in candidate.stack.planes))


def _one_of(found: Sequence[_Found], dropped: Counter[str]) -> Match:
    best = chosen([one.candidate for one in found])
    for one in found:
        if one.candidate is not best:
            dropped[REPEATED_SERIES] += len(one.match.slices)
    return next(one.match for one in found if one.candidate is best)
