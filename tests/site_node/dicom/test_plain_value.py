"""Values taken from an element's bytes are those that the library gives."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from site_node.dicom.headers import KEYWORDS
from site_node.dicom.plain_value import NUMBER, PADDING, TEXTS, plain_value
from site_node.dicom.quiet import quiet
from tests.fakes.dicom import make_dataset, save

OF_VR = {
    "AS": "PatientAge", "CS": "Modality", "DA": "StudyDate", "LO": "PatientID", "SH": "AccessionNumber",
    "UI": "StudyInstanceUID", "US": "Rows",
}  # fmt: skip
TEXT = st.text(st.characters(max_codepoint=255), max_size=16).map(lambda text: text.encode("latin-1"))


def dataset_with(keyword: str, value: bytes, vr: str | None, little: bool = True) -> Dataset:
    tag = Tag(keyword)
    dataset = Dataset({tag: RawDataElement(tag, vr, len(value), value, 0, vr is None, little)})
    dataset.set_original_encoding(vr is None, little, "iso8859")
    return dataset


@given(st.sampled_from(sorted(OF_VR)), TEXT, st.booleans(), st.booleans())
def test_a_plain_value_is_the_library_s(vr: str, value: bytes, implicit: bool, little: bool) -> None:
    words = [None if implicit else vr]
    found = plain_value(dataset_with(OF_VR[vr], value, words[0], little), OF_VR[vr])
    if found is None:
        return
    with quiet():
        expected = dataset_with(OF_VR[vr], value, words[0], little).get(OF_VR[vr])
    if isinstance(found, int):
        assert found == expected
    else:
        assert found.replace("\0", "").strip() == str(expected).replace("\0", "").strip()


@pytest.mark.parametrize(
    ("keyword", "value", "found"),
    [
        ("PatientID", b"4711 ", "4711"),
        ("StudyInstanceUID", b"1.2.3\0", "1.2.3"),
        ("Rows", b"\x00\x02", 512),
        ("PatientID", b"Ax\x1b$B", None),
        ("PatientID", b"M\xfcller", None),
        ("PatientID", b"a~b", None),
        ("Modality", b"CT\\MR", None),
        ("Modality", b"  ", None),
        ("Rows", b"\x00\x02\x00\x02", None),
        ("PatientName", b"Jansen", None),
        ("PixelSpacing", b"1.0", None),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(keyword: str, value: bytes, found: str | int | None) -> None:
    assert plain_value(dataset_with(keyword, value, None), keyword) == found


def test_an_element_that_is_missing_or_was_looked_at_is_left_to_the_library() -> None:
    dataset = Dataset()
    assert plain_value(dataset, "Modality") is None
    dataset.Modality = "CT"
    assert plain_value(dataset, "Modality") is None


def test_of_a_whole_header_nearly_everything_is_plain(tmp_path: Path) -> None:
    path = save(make_dataset(np.zeros((8, 8), np.uint8)), tmp_path / "a.dcm")
    data = path.read_bytes()
    found = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
    present = [keyword for keyword in KEYWORDS if Tag(keyword) in found]
    values = {keyword: plain_value(found, keyword) for keyword in present}
    kinds = {keyword: pydicom.datadict.dictionary_VR(Tag(keyword)) for keyword in present}
    plain = [keyword for keyword in present if kinds[keyword] in {*TEXTS, NUMBER} and found[keyword].VM == 1]
    expected = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
    assert {keyword: values[keyword] for keyword in plain if str(expected[keyword].value)} == {
        keyword: expected[keyword].value for keyword in plain if str(expected[keyword].value)
    }
    assert len(plain) > 10
    assert all(not isinstance(value, str) or value == value.rstrip(PADDING) for value in values.values())
