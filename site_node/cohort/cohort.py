"""The patients of one study at this site: index and labels joined, criteria applied, split, and named by a digest.

Whatever falls out is counted by reason (`Cohort.dropped`): reasons begin with what they count, `label:`, `image:` or
`patient:`. Nothing here leaves the hospital but figures that its administrator approves.

An image belongs to the patient that its header names; labels.csv must name the same, or stands in where the header has
no patient id. A patient's label is made of the labels of all images that take part (`study.label.patient_label`): any
positive, all positive, or more than half of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from protocol.digest import digest_of
from protocol.study import StudySpec
from protocol.study_parts import Split
from site_node.cohort.findings import Findings, patient_findings, patient_label
from site_node.cohort.identities import AS_THEY_ARE, Identities
from site_node.cohort.index_database import open_index
from site_node.cohort.indexed_masks import masks_of_index
from site_node.cohort.label_records import LabelRecords
from site_node.cohort.labels import Labels, Records, read_labels
from site_node.cohort.masks import Masked, with_masks
from site_node.cohort.matching import Match, matches_of
from site_node.cohort.quality import Noticed, quality_counts
from site_node.cohort.splits import instance_digest, pseudonym, split_of
from site_node.cohort.value_labels import read_value_labels
from site_node.cohort.volumes import takes_volumes, volume_matches_of
from site_node.errors import IndexingError, TooFewPatientsError
from site_node.label_settings import LabelSettings
from site_node.labels.masks import MaskRef
from site_node.labels.naming import class_numbers
from site_node.rounded_counts import in_tens

NO_OWN_WORDS = LabelSettings()
MANIFEST_SCHEMA = "wardround.cohort/1"
SMALLEST_SAID = 10
"""The smallest number of files or rows that a log may hold; patients are never counted in one."""
SEVERAL_SPLITS = "patient: labels.csv puts the patient into several splits"
BELOW_MINIMUM = "patient: the site has fewer training patients than the study's minimum, so it does not train"
ONE_CLASS = "patient: the site's training patients are all of one class, from which nothing is learnt, so none trains"


@dataclass(frozen=True)
class ImageRef:
    """One image of a patient; `frame` is None for a single-frame image, `content_digest` is over the file's bytes.

    Of a study of volumes, one series: `slices` are its files as they lie, `path` the first, `sop_instance_uid` the
    series' UID, and the content digest is over the files' digests. Of a tabular study, one row: `path` is the table,
    and the content digest, over what is read of the row, its name.
    Never leaves the hospital. `findings` are those of a multi-label study, in which `label` says whether there is one;
    `value` is the number of a regression study; `mask` lies in a segmentation study on the image, and its digest is
    over what was read of it.
    """

    path: Path
    sop_instance_uid: str
    label: int | None
    frame: int | None = None
    age_years: float | None = None
    sex: str | None = None
    view: str | None = None
    content_digest: str = ""
    slices: tuple[Path, ...] = ()
    findings: Findings = ()
    value: float | None = None
    mask: MaskRef | None = None
    mask_digest: str = ""


@dataclass(frozen=True)
class Patient:
    """One patient: `key` is the site's own patient id and never leaves the hospital.

    `time` is None but in survival studies: until the event, if the label is 1, or until the last contact.
    """

    key: str
    images: tuple[ImageRef, ...]
    label: int
    split: Split
    time: float | None = None
    findings: Findings = ()


@dataclass(frozen=True)
class Cohort:
    """A study's patients, sorted by key; `dropped` counts what fell out, by reason.

    `left_out` counts by split those who match and whose spent budget keeps them out: the number stands in no log.
    `told` is the number of training patients as it leaves with noise; None where it leaves exact.
    `values` are the rows of a tabular study, scaled, in the order of the patients and of their rows.
    `mask_names` says which class each name or number in a mask stood for when the masks were read.
    `opted_out` counts by split those of `left_out` who opted out since it was frozen, and their images or rows.
    `noticed` is there when a cohort is built and is not kept with it, and so are `remedies`, of reasons in `dropped`.
    Shapes: values (row, feature) float32.
    Guarantee: equal `manifest_digest` means the same patients, images or rows (to the byte), labels and splits.
    """

    patients: tuple[Patient, ...]
    manifest_digest: str
    dropped: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[Split, int] = field(default_factory=dict)
    values: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    noticed: Noticed = field(default_factory=Noticed, compare=False, repr=False)
    told: int | None = None
    mask_names: Mapping[str, int] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    opted_out: Mapping[Split, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)

    def of(self, split: Split) -> tuple[Patient, ...]:
        """Return the patients of one split, sorted by key."""
        return tuple(patient for patient in self.patients if patient.split == split)

    def quality_counts(self) -> tuple[int, int, int]:
        """Return three un-noised counts of training patients (`quality.py`), which leave noised as the study says."""
        return quality_counts([(patient.key, patient.label) for patient in self.of("train")], self.noticed)

    @property
    def training_figure(self) -> int:
        """Return the number of training patients that leaves: noised where the study says so; 0 if nobody trains."""
        return self.public_figure("train") if self.told is None else self.told

    def public_figure(self, *splits: Split) -> int:
        """Return how many patients of these splits match, left out or not: the figure to approve; 0 if none is in.

        So a site's figures over studies of the same patients do not tell how many budgets were spent in between.
        """
        taking_part = sum(len(self.of(split)) for split in splits)
        return taking_part + sum(self.left_out.get(split, 0) for split in splits) if taking_part else 0


def everybody(_patient: Patient) -> bool:
    """Let every patient take part."""
    return True


def build_cohort(
    index_path: Path,
    labels_path: Path,
    study: StudySpec,
    split_key: bytes,
    may_take_part: Callable[[Patient], bool] = everybody,
    identities: Identities = AS_THEY_ARE,
    labelling: LabelSettings = NO_OWN_WORDS,
) -> Cohort:
    """Build a study's cohort from the index and the site's labels; who may not take part is left out.

    `identities` says who is one patient and who has opted out: these are not there at all, not even counted.
    `labelling` holds the site's own words, and which of its reports' concepts are labels.

    Guarantee: the same files, labels, study and key give the same cohort, wherever they lie; each image was decoded
        once. A site whose training patients are too few for the study, or all of one class, keeps its held-out ones
        and evaluates only: what leaves does not tell which of the two it was.
    Raises: IndexingError without an index; LabelsError; TooFewPatientsError if nobody is left.
    """
    if not index_path.exists():
        raise IndexingError("The images of this site are not indexed yet.", "Run: wardround site index")
    with open_index(index_path, identities) as database:
        records = LabelRecords.of_study(database, labels_path, study, labelling, identities.one)
        labels = identities.of_labels(_labels(labels_path, study, records.of))
        dropped, noticed = Counter(labels.dropped) + records.dropped, Noticed()
        find = volume_matches_of if takes_volumes(study) else matches_of
        matches = find(database, labels, study, dropped, noticed)
        drawn = masks_of_index(database.annotations()) if study.kind == "segmentation" else None
    masked = Masked(list(matches), {}, {})
    if study.kind == "segmentation":
        numbers = class_numbers(study.label.classes, labelling.names)
        masked = with_masks(matches, labels_path, numbers, dropped, drawn)
    found = _patients(masked.matches, study, split_key, dropped, identities)
    try:
        cohort = chosen_cohort(found, study, split_key, may_take_part, dropped)
    except TooFewPatientsError as error:
        raise TooFewPatientsError(error.message, " ".join([*masked.remedies.values(), error.remedy])) from None
    return replace(cohort, noticed=noticed, mask_names=masked.names, remedies=masked.remedies)


def _labels(path: Path, study: StudySpec, records: Records) -> Labels:
    if study.is_judged_by_values:
        return read_value_labels(path, study, records)
    return read_labels(path, study.label, records)


def chosen_cohort(
    found: Iterable[Patient],
    study: StudySpec,
    split_key: bytes,
    may_take_part: Callable[[Patient], bool],
    dropped: Counter[str],
) -> Cohort:
    """Make a cohort of the patients found who may take part, without training ones from whom nothing is learnt.

    Raises: TooFewPatientsError if nobody is left.
    """
    matching = list(found)
    allowed = [patient for patient in matching if may_take_part(patient)]
    left_out = Counter(patient.split for patient in matching) - Counter(patient.split for patient in allowed)
    patients = _without_useless_training(allowed, study, dropped)
    reasons = {reason: number for reason, number in sorted(dropped.items()) if number}
    return Cohort(tuple(patients), manifest_digest_of(patients, split_key), reasons, dict(left_out))


def _patients(
    matches: Iterable[Match], study: StudySpec, split_key: bytes, dropped: Counter[str], identities: Identities
) -> list[Patient]:
    by_patient: defaultdict[str, list[Match]] = defaultdict(list)
    for match in matches:
        by_patient[match.row.patient_id].append(match)
    patients: list[Patient] = []
    for key, own in sorted(by_patient.items()):
        split = split_of(identities.dealt_as(key), {match.row.split for match in own}, study.splits, split_key)
        if split is None:
            dropped[SEVERAL_SPLITS] += 1
            continue
        images = tuple(_image(match) for match in sorted(own, key=lambda match: match.row.sop_instance_uid))
        label = patient_label([match.row.label for match in own], study.label.patient_label)
        findings = patient_findings([match.row.findings for match in own], study.label.patient_label)
        patients.append(Patient(key, images, label, split, findings=findings))
    return patients


def _image(match: Match) -> ImageRef:
    return ImageRef(
        path=match.image.path,
        sop_instance_uid=match.row.sop_instance_uid,
        label=match.row.label,
        age_years=match.facts.age_years,
        sex=match.facts.sex,
        view=match.facts.view,
        content_digest=match.content.digest,
        slices=match.slices,
        findings=match.row.findings,
        value=match.row.value,
        mask=match.mask.ref if match.mask else None,
        mask_digest=match.mask.digest if match.mask else "",
    )


def _without_useless_training(patients: list[Patient], study: StudySpec, dropped: Counter[str]) -> list[Patient]:
    labels = [patient.label for patient in patients if patient.split == "train"]
    too_few = len(labels) < study.cohort.minimum_patients
    single = _is_single_class(study, [patient for patient in patients if patient.split == "train"])
    nothing_to_learn = single and study.cohort.single_class == "evaluate"
    if labels and (too_few or nothing_to_learn):
        dropped[BELOW_MINIMUM if too_few else ONE_CLASS] = len(labels)
        patients = [patient for patient in patients if patient.split != "train"]
    if not patients:
        least = max(study.cohort.minimum_patients, SMALLEST_SAID)
        reasons = "; ".join(_said(reason, number, least) for reason, number in sorted(dropped.items()) if number)
        raise TooFewPatientsError(
            f"No patient of this site is left for the study. What fell out: {reasons or 'nothing, nobody is there'}.",
            "Compare the study's criteria and columns with the images and labels.csv, or with the table; index again.",
        )
    return patients


def _is_single_class(study: StudySpec, training: Sequence[Patient]) -> bool:
    """Tell whether nothing is learnt from these patients: of findings, that none is seen both present and absent."""
    if study.is_judged_by_values:
        return False
    if study.outcome == "multi-label":
        return not any({0, 1} <= set(of_all) for of_all in zip(*(p.findings for p in training), strict=True))
    labels = {patient.label for patient in training}
    return labels <= {0} if study.is_survival else len(labels) == 1


def _said(reason: str, number: int, least: int) -> str:
    if reason.startswith("patient: "):
        return reason
    tens = in_tens(number, least)
    return f"fewer than {least} x {reason}" if tens is None else f"{tens} or more x {reason}"


def _said_of(image: ImageRef) -> list[object]:
    findings = [list(image.findings)] if image.findings else []
    measured = [{"value": image.value}] if image.value is not None else []
    drawn = [{"mask": image.mask_digest}] if image.mask_digest else []
    return [image.label, *findings, *measured, *drawn]


def manifest_digest_of(patients: Sequence[Patient], split_key: bytes) -> str:
    """Return the digest that names these patients, their images or rows, labels and splits."""
    entries = sorted(
        [
            pseudonym(patient.key, split_key),
            patient.split,
            patient.label,
            [[instance_digest(i.sop_instance_uid, split_key), i.content_digest, *_said_of(i)] for i in patient.images],
        ]
        for patient in patients
    )
    return digest_of({"schema": MANIFEST_SCHEMA, "patients": entries})
