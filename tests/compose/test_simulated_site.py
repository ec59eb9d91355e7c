"""What a simulation says of a hospital's images."""

from pathlib import Path

from compose.simulated_site import said_of
from site_node.cohort.index import IndexReport
from site_node.cohort.index_database import Quarantined


def test_files_set_aside_are_said_with_their_reasons_and_where_to_look() -> None:
    reasons = ["not a DICOM file", "no pixels", "not a DICOM file"]
    aside = tuple(Quarantined(Path(f"{number}.dcm"), reason) for number, reason in enumerate(reasons))
    said = said_of(IndexReport(11, 8, 4, 8, aside), [Path("images")])
    assert "3 files set aside (2 x not a DICOM file; 1 x no pixels)" in said
    assert said.endswith("wardround site index images")


def test_where_all_is_usable_nothing_more_is_said() -> None:
    assert said_of(IndexReport(8, 8, 4, 8, ()), [Path("images")]) == "8 images of 4 patients"
