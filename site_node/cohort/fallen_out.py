"""What fell out of a cohort, said once to the site's administrator: how many files or rows, why, and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from site_node.cohort import table, table_cohort
from site_node.cohort.cohort import BELOW_MINIMUM, ONE_CLASS, SEVERAL_SPLITS, SMALLEST_SAID
from site_node.cohort.contents import UNDECODABLE, VANISHED
from site_node.cohort.labels import CONTRADICTION, FOREIGN_SPLIT, FOREIGN_VALUE, NO_INSTANCE, NO_VALUE
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT, SEVERAL_FRAMES, UNLABELLED
from site_node.cohort.volumes import NO_SERIES, NO_VOLUME, REPEATED_SERIES, ROWS_DISAGREE

KINDS = {"image: ": "images", "label: ": "rows of labels.csv", "row: ": "rows of the table"}
SAID_ELSEWHERE = {BELOW_MINIMUM, ONE_CLASS}
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
    VANISHED: "Run `wardround site index`.",
    UNDECODABLE: "Export these files anew and run `wardround site index`.",
    NO_INSTANCE: "Fill in both columns.",
    NO_VALUE: "Fill in the label column if these images belong to this study.",
    FOREIGN_VALUE: "Write a class's name as the study spells it, or its number.",
    FOREIGN_SPLIT: "Use one of the three words, or leave the column empty.",
    CONTRADICTION: "Keep one row of each instance.",
    SEVERAL_SPLITS: "Put all rows of a patient into one split.",
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


@dataclass(frozen=True)
class FallenOut:
    """One reason with its remedy; `is_fault` tells that somebody may want to correct something."""

    why: str
    is_fault: bool


def fallen_out(dropped: Mapping[str, int], minimum: int) -> Iterator[FallenOut]:
    """Say each reason of a cohort's `dropped` but those that the whole site has for not training.

    Files and rows are counted, patients are not; a number below the minimum is hidden.
    """
    least = max(minimum, SMALLEST_SAID)
    for reason, number in sorted(dropped.items()):
        if reason in SAID_ELSEWHERE:
            continue
        said = reason
        for kind, words in KINDS.items():
            if reason.startswith(kind):
                said = f"{number if number >= least else f'fewer than {least}'} {words}: {reason.removeprefix(kind)}"
        remedy = INCOMPLETE if reason.startswith(NO_VOLUME) else REMEDIES.get(reason)
        yield FallenOut(f"{said}. {remedy or OF_THE_STUDY}", remedy is not None)
