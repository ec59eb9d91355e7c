"""The odd and damaged files of the development data: each becomes a copy, or a refusal with a reason."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentified_file import deidentified_file
from site_node.dicom.element_value import first_value
from site_node.dicom.quiet import quiet
from site_node.errors import DeidentificationError
from tests.site_node.dicom.planting import PSEUDONYMS

ODD_FILES = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"
POLICY = DeidentificationPolicy(
    modified_dates=True, device_identity=True, patient_characteristics=True, clean_descriptors=True
)


@pytest.mark.shared
def test_each_odd_file_is_copied_or_refused_and_a_copy_names_nobody() -> None:
    paths = [p for p in sorted(ODD_FILES.rglob("*")) if p.is_file() and p.suffix not in (".csv", ".md")]
    copied, changed = 0, 0
    reasons: list[str] = []
    for path in paths:
        content = path.read_bytes()
        try:
            made = deidentified_file(content, POLICY, PSEUDONYMS)
        except DeidentificationError as error:
            reasons.append(error.message)
            continue
        copied += 1
        assert deidentified_file(made.content, POLICY, PSEUDONYMS).content == made.content, path.name
        with quiet():
            changed += _is_changed(content, made.content, "blanked" in str(made.report.notes), path.name)
    assert len(paths) == copied + len(reasons) == 371
    assert all(reasons)
    assert copied >= 250
    assert changed >= 10  # screens and ultrasound pictures with text


def _is_changed(before: bytes, after: bytes, blanked: bool, name: str) -> bool:
    original, copy = pydicom.dcmread(BytesIO(before), force=True), pydicom.dcmread(BytesIO(after))
    header = after.replace(bytes(copy.get("PixelData") or b"-"), b"")
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "SOPInstanceUID"):
        value = str(first_value(original, keyword) or "").strip("\0 ")
        if len(value) > 4:
            assert value.encode("utf-8", "replace") not in header, (name, keyword)
    if not blanked:
        assert original.get("PixelData") == copy.get("PixelData"), name
    elif "PixelData" in copy:
        assert copy.pixel_array.size
    return blanked
