"""Headers: what is read, and what each fault is called."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BasicTextSRStorage, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from site_node.dicom.headers import is_dicom, read_header
from site_node.errors import UnreadableError
from tests.fakes.dicom import make_dataset, save, uid_of

PIXELS = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)


def reason_of(path: Path) -> str:
    with pytest.raises(UnreadableError) as caught:
        read_header(path)
    return caught.value.message


def test_a_header_gives_the_facts_of_the_index(tmp_path: Path) -> None:
    path = save(make_dataset(PIXELS, "P7", Manufacturer="Made up", StudyDate="20200131"), tmp_path / "a.dcm")
    header = read_header(path)
    assert (header.patient_id, header.modality, header.body_part, header.view) == ("P7", "DX", "CHEST", "PA")
    assert (header.sex, header.age_years, header.study_date, header.manufacturer) == ("F", 50.0, "20200131", "Made up")
    assert (header.rows, header.columns, header.frames, header.samples) == (16, 16, 1, 1)
    assert header.sop_instance_uid == uid_of("P7/1")


@pytest.mark.parametrize(
    ("headers", "years"),
    [
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "026W"}, 0.4983),
        ({"PatientAge": "000D"}, 0.0),
        ({"PatientAge": "", "PatientBirthDate": "19700101", "StudyDate": "20200101"}, 50.0),
        ({"PatientAge": None}, None),
        ({"PatientAge": "", "PatientBirthDate": "20210101", "StudyDate": "20200101"}, None),
    ],
)
def test_age_comes_in_years_from_the_age_or_from_two_dates(
    tmp_path: Path, headers: dict[str, str], years: float | None
) -> None:
    header = read_header(save(make_dataset(PIXELS, **headers), tmp_path / "a.dcm"))
    assert header.age_years == (None if years is None else pytest.approx(years, abs=0.01))


def test_terms_are_in_capitals_and_stripped(tmp_path: Path) -> None:
    path = save(make_dataset(PIXELS, BodyPartExamined="CHEST ", ViewPosition=""), tmp_path / "a.dcm")
    header = read_header(path)
    assert header.body_part == "CHEST"
    assert header.view is None


def test_an_image_without_patient_id_is_read(tmp_path: Path) -> None:
    assert read_header(save(make_dataset(PIXELS, PatientID=""), tmp_path / "a.dcm")).patient_id is None


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    path = save(make_dataset(PIXELS), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[132:])
    assert read_header(path).modality == "DX"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_read(tmp_path: Path, syntax: str) -> None:
    dataset = make_dataset(PIXELS)
    dataset.file_meta.TransferSyntaxUID = syntax
    assert read_header(save(dataset, tmp_path / "a.dcm")).transfer_syntax == syntax


def test_compressed_pixels_are_read(tmp_path: Path) -> None:
    dataset = make_dataset(PIXELS)
    dataset.compress(JPEGLSLossless)
    assert read_header(save(dataset, tmp_path / "a.dcm")).rows == 16


@dataclass(frozen=True)
class Fault:
    """A way in which a file is no usable image, and a part of the sentence that says so."""

    name: str
    words: str
    spoil: Callable[[Dataset], None]


def without_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def report_without_pixels(dataset: Dataset) -> None:
    del dataset.PixelData
    dataset.SOPClassUID = BasicTextSRStorage


def with_empty_pixels(dataset: Dataset) -> None:
    dataset.PixelData = b""


def without_instance_uid(dataset: Dataset) -> None:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = ""


def without_rows(dataset: Dataset) -> None:
    del dataset.Rows


def with_too_few_pixels(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:100]


def with_gigantic_frame(dataset: Dataset) -> None:
    dataset.Rows = dataset.Columns = 65535


def with_private_syntax(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = "1.2.3.4.5"
    dataset["PixelData"].is_undefined_length = False


FAULTS = (
    Fault("pixels removed", "no pixels, though it calls itself 'Digital X-Ray Image", without_pixels),
    Fault("a report", "a structured report", report_without_pixels),
    Fault("empty pixel data", "pixel data element is empty", with_empty_pixels),
    Fault("no instance uid", "lacks the SOP instance UID", without_instance_uid),
    Fault("no rows", "lacks what describes the pixels: Rows", without_rows),
    Fault("too few pixels", "fewer pixels than rows", with_too_few_pixels),
    Fault("gigantic", "more than", with_gigantic_frame),
    Fault("private syntax", "unknown or private to a manufacturer", with_private_syntax),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_has_its_sentence(tmp_path: Path, fault: Fault) -> None:
    dataset = make_dataset(PIXELS)
    fault.spoil(dataset)
    path = tmp_path / "a.dcm"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if "MediaStorageSOPInstanceUID" not in dataset.file_meta:
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    assert fault.words in reason_of(path)


def test_a_file_cut_within_its_pixels_is_called_damaged(tmp_path: Path) -> None:
    path = save(make_dataset(PIXELS), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-50])
    assert "ends in the middle of its pixels" in reason_of(path)


def test_a_dicomdir_is_called_one(tmp_path: Path) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    dataset.file_meta.MediaStorageSOPInstanceUID = uid_of("directory")
    dataset.DirectoryRecordSequence = []
    dataset.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert "DICOMDIR" in reason_of(tmp_path / "DICOMDIR")


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b"hello, world" * 20, "not a DICOM file")])
def test_what_is_no_dicom_is_called_so(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a").write_bytes(content)
    assert words in reason_of(tmp_path / "a")


def test_a_missing_file_is_an_unreadable_one(tmp_path: Path) -> None:
    assert "cannot be opened" in reason_of(tmp_path / "gone.dcm")


def test_pictures_are_not_taken_for_dicom() -> None:
    assert not is_dicom(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert not is_dicom(b"\xff\xd8\xff\xe0" + bytes(200))
    assert not is_dicom(b"PK\x03\x04" + bytes(200))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_leads_to_another_exception(tmp_path: Path, data: st.DataObject) -> None:
    path = save(make_dataset(PIXELS), tmp_path / "damaged.dcm")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UnreadableError):
        read_header(path)
