"""What fell out of a cohort, said once to the site's administrator: how many files or rows, why, and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from site_node.cohort import label_records, masks, table, table_cohort, value_labels
from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, SEVERAL_SPLITS, SMALLEST_SAID
from site_node.cohort.contents import UNDECODABLE, VANISHED
from site_node.cohort.labels import CONTRADICTION, FOREIGN_SPLIT, FOREIGN_VALUE, NO_INSTANCE, NO_VALUE
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT, SEVERAL_FRAMES, UNLABELLED
from site_node.cohort.volumes import NO_SERIES, NO_VOLUME, REPEATED_SERIES, ROWS_DISAGREE, TOO_FINE
from site_node.rounded_counts import in_tens

KINDS = {
    **{"image: ": "images", "label: ": "rows of labels.csv", "row: ": "rows of the table"},
    **{"report: ": "structured reports", "mask: ": "rows of masks.csv"},
}
NOT_TRAINING = {
    BELOW_MINIMUM: "Label more patients of this study, or let the site evaluate only.",
    ONE_CLASS: (
        "Check the label column, and the study's label.patient_label (any: one positive image is enough for the "
        "patient); add patients of the other class, or let the site evaluate only."
    ),
}
"""Why a whole site does not train, which `fallen_out` leaves to its callers, and what to do."""
OF_THE_STUDY = "This is the study's choice; nothing is to be done."
INCOMPLETE = "Look at the series in a viewer; send it anew from the archive if it should be one scan."
REMEDIES = {
    UNLABELLED: "Add their rows to labels.csv if they belong to this study.",
    ORPHAN: "Check the UIDs in labels.csv; add the images and run `wardround site index` again.",
    OTHER_PATIENT: "Correct the patient id in labels.csv.",
    SEVERAL_FRAMES: "Offer single pictures if they belong to this study.",
    NO_SERIES: "Export these files anew, with their series.",
    ROWS_DISAGREE: "Give a series' rows one patient, one label and one split.",
    REPEATED_SERIES: "Label only the series that is to be used, if the rule chooses another.",
    TOO_FINE: "Tell the researcher: a wider Spacing in preprocessing.steps takes them.",
    VANISHED: "Run `wardround site index`.",
    UNDECODABLE: "Export these files anew and run `wardround site index`.",
    NO_INSTANCE: "Fill in both columns.",
    NO_VALUE: "Fill in the label column if these images belong to this study.",
    FOREIGN_VALUE: "Write a class's name as the study spells it, or its number.",
    FOREIGN_SPLIT: "Use one of the three words, or leave the column empty.",
    CONTRADICTION: "Keep one row for each image.",
    SEVERAL_SPLITS: "Put all rows of a patient into one split.",
    value_labels.NO_NUMBER: "Write numbers with a point, without a unit.",
    value_labels.OUT_OF_RANGE: "Check the number and its unit; the study says the range.",
    label_records.NOBODYS: "Check the UIDs in labels.csv; add the images and run `wardround site index` again.",
    label_records.UNREADABLE_REPORT: "Finish the report, or export it anew and run `wardround site index`.",
    label_records.SILENT_REPORT: "Check the concept in site.yaml (reports) against what the reports say.",
    label_records.STRAY_REPORT: "Add the images that the reports name and run `wardround site index` again.",
    masks.NO_MASK: "Add rows to masks.csv, or the segmentations to the images and run `wardround site index`.",
    masks.SEVERAL_MASKS: "Name the one that counts in masks.csv.",
    masks.NO_IMAGE_NAMED: "Fill in the file, and the UID of the image or series that it was drawn on.",
    table.NO_PATIENT: "Fill in the column.",
    table.NO_LABEL: "Fill in the label column if these patients belong to this study.",
    table.FOREIGN_LABEL: "Write a class's name as the study spells it, or its number.",
    table.NO_TIME: "Write the time until the event or the last contact as a number.",
    table.EMPTY_CELL: "Fill in what is known; the study says for which columns something stands in.",
    table.NO_NUMBER: "Write numbers with a point, without a unit.",
    table.FOREIGN_SPLIT: "Use one of the three words, or leave the column empty.",
    table_cohort.REPEATED: "Leave one of the equal rows; they count once.",
    table_cohort.SEVERAL_SPLITS: "Put all rows of a patient into one split.",
    table_cohort.SEVERAL_TIMES: "Give a patient's rows the same time and event.",
}

BEGINNINGS = {NO_VOLUME: INCOMPLETE, masks.UNUSABLE: "Export the mask for this very series, or correct masks.csv."}
"""Of reasons that end with what is wrong with a file."""
CONCERNS = {
    "conflicts": {
        *(CONTRADICTION, OTHER_PATIENT, ROWS_DISAGREE, SEVERAL_SPLITS, REPEATED_SERIES, masks.SEVERAL_MASKS),
        *(table_cohort.SEVERAL_SPLITS, table_cohort.SEVERAL_TIMES, table_cohort.REPEATED),
    },
    "orphans": {ORPHAN, label_records.NOBODYS, label_records.STRAY_REPORT, masks.NO_IMAGE_NAMED},
    "unlabelled": {UNLABELLED, masks.NO_MASK, NO_VALUE, table.NO_LABEL},
    "unreadable": {VANISHED, UNDECODABLE, NO_SERIES, SEVERAL_FRAMES, label_records.UNREADABLE_REPORT},
}


@dataclass(frozen=True)
class FallenOut:
    """One reason with its remedy; `is_fault` tells that somebody may want to correct something.

    `concern` is what a report files it under: conflicts, orphans, unlabelled, unreadable, labels or criteria.
    """

    says: str
    remedy: str
    concern: str
    is_fault: bool

    @property
    def why(self) -> str:
        """Return reason and remedy in one line, for a log."""
        return f"{self.says}. {self.remedy}"


def fallen_out(
    dropped: Mapping[str, int], minimum: int, remedies: Mapping[str, str] = MappingProxyType({})
) -> Iterator[FallenOut]:
    """Say each reason of a cohort's `dropped` but those that the whole site has for not training.

    Files and rows are counted, in tens, and patients are not; a number below the minimum is hidden.
    `remedies` are those of this cohort's own reasons, and go first.
    """
    least = max(minimum, SMALLEST_SAID)
    for reason, number in sorted(dropped.items()):
        if reason in NOT_TRAINING:
            continue
        said = reason
        for kind, words in KINDS.items():
            if reason.startswith(kind):
                tens = in_tens(number, least)
                many = f"fewer than {least}" if tens is None else f"{tens} or more"
                said = f"{many} {words}: {reason.removeprefix(kind)}"
        usual = next((text for start, text in BEGINNINGS.items() if reason.startswith(start)), REMEDIES.get(reason))
        remedy = remedies.get(reason) or usual
        yield FallenOut(said, remedy or OF_THE_STUDY, _concern(reason, is_fault=remedy is not None), remedy is not None)


def concerns_of(dropped: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield what each reason of a cohort's `dropped` is filed under, with its number of files or rows."""
    for reason, number in dropped.items():
        if any(reason.startswith(kind) for kind in KINDS):
            is_fault = reason in REMEDIES or any(reason.startswith(start) for start in BEGINNINGS)
            yield _concern(reason, is_fault=is_fault), number


def _concern(reason: str, *, is_fault: bool) -> str:
    if any(reason.startswith(start) for start in BEGINNINGS):
        return "unreadable"
    if not is_fault:
        return "criteria"
    return next((concern for concern, reasons in CONCERNS.items() if reason in reasons), "labels")
