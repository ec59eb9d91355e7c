"""Whom criteria would find in the index, before any study asks: counts, why the others fell out, and doubtful patients.

For the hospital's administrator. A number below the minimum is hidden, and with the patients everything that counts
the same images; what depends on the criteria is in tens, so that two surveys that differ by a year of age do not
subtract to one patient. Nothing here leaves. Patients are counted under their one id, and who opted out is not there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.cohort_terms import Cohort as Criteria
from protocol.study import StudySpec
from site_node.cohort.contents import UNDECODABLE
from site_node.cohort.csv_file import PATIENT_COLUMN
from site_node.cohort.fallen_out import fallen_out
from site_node.cohort.identities import Identities
from site_node.cohort.index_database import IndexDatabase, IndexedImage
from site_node.cohort.label_columns import columns_of
from site_node.cohort.label_records import LabelRecords
from site_node.cohort.labels import INSTANCE_COLUMN
from site_node.cohort.matching import UNLABELLED
from site_node.cohort.query import facts_of, unmet_criterion
from site_node.label_settings import LabelSettings
from site_node.rounded_counts import TEN, in_tens

NAMELESS = "image: its header names no patient, so labels.csv must"


@dataclass
class Survey:
    """What was found: numbers of whatever meets the criteria, and by reason how many images or files do not."""

    patients: set[str] = field(default_factory=set)
    imaging_studies: set[str] = field(default_factory=set)
    series: set[str] = field(default_factory=set)
    images: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    doubtful: set[tuple[str, str]] = field(default_factory=set)

    def figures(self, least: int) -> dict[str, int | None]:
        """Return the numbers, in tens; all are None where fewer patients than the least are found."""
        found = {
            "patients": len(self.patients),
            "imaging_studies": len(self.imaging_studies),
            "series": len(self.series),
            "images": self.images,
        }
        return {name: in_tens(number, 1) if len(self.patients) >= least else None for name, number in found.items()}


def survey(database: IndexDatabase, criteria: Criteria, labelled: Collection[str] | None = None) -> Survey:
    """Apply criteria to every image of the index; `labelled` names the instances and series that have labels."""
    found, counted = Survey(), set[str]()
    of_instance, of_study = dict[str, str](), dict[str, str]()
    for image in database.pictures():
        reason = _reason(image, criteria, labelled)
        patient, instance = image.header.patient_id, image.header.sop_instance_uid
        if patient is not None:
            found.doubtful |= set(_doubt(patient, instance, of_instance))
            found.doubtful |= set(_doubt(patient, image.header.study_instance_uid, of_study))
        if reason is not None:
            found.dropped[reason] += 1
        elif instance not in counted:  # copies of an instance count once
            counted.add(instance)
            _count(found, image)
    found.quarantined = Counter(entry.reason for entry in database.quarantined())
    return found


def labelled_names(
    database: IndexDatabase,
    path: Path,
    settings: LabelSettings,
    one_id: Callable[[str], str],
    study: StudySpec | None = None,
) -> frozenset[str]:
    """Return the instances (of volumes perhaps series) that have a row in labels.csv and a patient, whatever the label.

    The file may label instances, series, imaging studies or patients. A study whose label is found in structured
    reports is labelled by these.
    Raises: LabelsError if there is no such file, or it names nothing.
    """
    columns = () if study is None or study.kind == "segmentation" else columns_of(study.label)
    in_reports = bool(columns) and all(column in settings.reports for column in columns)
    records = LabelRecords(database, path, settings, one_id=one_id).of(columns if in_reports else ())
    return frozenset(record[INSTANCE_COLUMN] for record in records if record[PATIENT_COLUMN])


def survey_as_json(found: Survey, identities: Identities, least: int) -> dict[str, Any]:
    """Return the survey as plain data; null stands for a number that is hidden."""
    return {
        "hidden_below": least,
        "found": found.figures(least),
        "fallen_out": [entry.why for entry in fallen_out(found.dropped, least)],
        "unusable": {reason: _shown(number, least) for reason, number in sorted(found.quarantined.items())},
        "doubtful_patients": _shown(len({one for pair in found.doubtful for one in pair}), least),
        "several_ids": _shown(len(identities.merged), least),
        "faults_of_lists": {reason: _shown(number, least) for reason, number in sorted(identities.faults.items())},
    }


def lines_of(report: Mapping[str, Any], doubts: int) -> Iterator[str]:
    """Yield the survey as lines for a terminal."""
    least, figures = report["hidden_below"], report["found"]
    if figures["patients"] is None:
        yield f"Fewer than {least} patients meet the criteria; nothing more is counted of them."
    else:
        counted = ", ".join(f"{_said(number, TEN)} {name.replace('_', ' ')}" for name, number in figures.items())
        yield f"The criteria meet, in tens: {counted}."
    yield from (f"  fell out: {why}" for why in report["fallen_out"])
    for reason, number in report["unusable"].items():
        yield f"  unusable: {_said(number, least)} files: {reason}"
    for reason, number in report["faults_of_lists"].items():
        yield f"  lists of patients: {_said(number, least)} x {reason.partition(': ')[2]}"
    if doubts:
        yield (
            f"Patients whose images stand under several ids: {_said(report['doubtful_patients'], least)}. One instance "
            "or imaging study names two patients. Look at them with --doubtful FILE, and join who is one patient "
            "(merged_patients in site.yaml)."
        )


def _reason(image: IndexedImage, criteria: Criteria, labelled: Collection[str] | None) -> str | None:
    header = image.header
    if image.content is not None and image.content.problem is not None:
        return UNDECODABLE
    unmet = unmet_criterion(facts_of(header, {}), criteria)
    if unmet is not None:
        return unmet
    if labelled is not None and header.sop_instance_uid not in labelled and header.series_instance_uid not in labelled:
        return NAMELESS if header.patient_id is None else UNLABELLED
    return NAMELESS if header.patient_id is None and labelled is None else None


def _count(found: Survey, image: IndexedImage) -> None:
    header = image.header
    found.images += 1
    for names, name in (
        (found.patients, header.patient_id),
        (found.imaging_studies, header.study_instance_uid),
        (found.series, header.series_instance_uid),
    ):
        if name is not None:
            names.add(name)


def _doubt(patient: str, name: str | None, owners: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield this patient and another, if a thing that belongs to one patient names both."""
    if name is not None and (other := owners.setdefault(name, patient)) != patient:
        yield min(patient, other), max(patient, other)


def _shown(number: int, least: int) -> int | None:
    return number if number == 0 or number >= least else None


def _said(number: int | None, least: int) -> str:
    return f"fewer than {least}" if number is None else str(number)
