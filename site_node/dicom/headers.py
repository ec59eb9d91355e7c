"""Read what the index needs of one DICOM file, without its pixels.

Source: DICOM PS3.10 (file format), PS3.5 section 7 (encoding), PS3.3 C.7.6.3 (Image Pixel Module).
Convention: whatever makes a file useless as an image is said in one sentence for the hospital's administrator
(`UnreadableError`), which names the fault and never a patient.

A file without the `DICM` preamble is read all the same if its first bytes are a DICOM element: old archives write such
files. That pixel data is present and complete is judged from its element's length; the pixels themselves are not read.
"""

import os
import re
import struct
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from site_node.dicom.deflated import check_inflated_size
from site_node.dicom.element_value import first_value, term_of, text_of, whole_number
from site_node.dicom.pixel_element import (
    MAX_IMAGE_BYTES,
    PIXEL_TAGS,
    PixelElement,
    check_compressed_frames,
    check_is_image,
    check_pixels_can_be_read,
)
from site_node.dicom.quiet import quiet
from site_node.errors import UnreadableError

PREAMBLE_BYTES = 128
DAYS_IN_YEAR = 365.25
UNITS_IN_YEAR = {"Y": 1.0, "M": 12.0, "W": DAYS_IN_YEAR / 7, "D": DAYS_IN_YEAR}
FIRST_GROUPS = (0x0002, 0x0008)
NOT_DICOM = "not a DICOM file"
EMPTY = "the file is empty"
UNPARSABLE = "damaged: the DICOM header cannot be parsed"

KEYWORDS = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "Manufacturer"),
    *("ProtocolName", "SeriesDescription"),
    *("Modality", "BodyPartExamined", "ViewPosition", "DirectoryRecordSequence"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "PixelRepresentation"),
)
TAGS = [Tag(keyword) for keyword in KEYWORDS]
DIRECTORY = Tag("DirectoryRecordSequence")


@dataclass(frozen=True)
class InstanceHeader:
    """One image as its header describes it. Text is stripped, terms are in capitals, what is missing is None.

    `patient_id` and the UIDs never leave the hospital.
    """

    sop_instance_uid: str
    sop_class_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None
    patient_id: str | None
    sex: str | None
    age_years: float | None
    study_date: str | None
    manufacturer: str | None
    protocol: str | None
    series_description: str | None
    modality: str | None
    body_part: str | None
    view: str | None
    transfer_syntax: str
    photometric: str | None
    samples: int
    frames: int
    rows: int
    columns: int


def is_dicom(start: bytes) -> bool:
    """Tell whether a file that starts with these bytes (132 or more, if it has them) can be DICOM."""
    if start[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] == b"DICM":
        return True
    if len(start) < 8:
        return False
    groups = (struct.unpack("<H", start[:2])[0], struct.unpack(">H", start[:2])[0])
    if not any(group in FIRST_GROUPS for group in groups):
        return False
    explicit = re.fullmatch(rb"[A-Z]{2}", start[4:6]) is not None
    return explicit or struct.unpack("<I", start[4:8])[0] < 256


def read_header(path: Path) -> InstanceHeader:
    """Read one file's header.

    Guarantee: no warning of the DICOM library leaks, and no exception other than the one below.
    Raises: UnreadableError with the sentence for the quarantine list.
    """
    try:
        with path.open("rb") as file, quiet():
            return _header(*checked_header(file, os.fstat(file.fileno()).st_size))
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(f"the file cannot be opened: {(error.strerror or 'input error').lower()}") from None
    except Exception:
        raise UnreadableError(UNPARSABLE) from None


def series_of_damaged(path: Path) -> str | None:
    """Return the series of a file that `read_header` refused, or None if it does not tell; never raises."""
    try:
        with path.open("rb") as file, quiet():
            if not is_dicom(file.read(PREAMBLE_BYTES + 4)):
                return None
            check_inflated_size(file)
            file.seek(0)
            wanted = [Tag("SeriesInstanceUID")]
            dataset = read_partial(
                file, stop_when=lambda tag, _vr, _length: tag in PIXEL_TAGS, specific_tags=wanted, force=True
            )
            return text_of(dataset, "SeriesInstanceUID")
    except Exception:  # as damaged as it can be
        return None


def checked_header(file: BinaryIO, size: int) -> tuple[Dataset, UID]:
    """Read what the index needs of an open file, and check that its pixels are there, bounded and decodable.

    Guarantee: no warning of the DICOM library leaks, and no other exception but the system's own; an exception of the
        library is not kept as a cause, because it may quote values of the header.
    Raises: UnreadableError with the sentence for the quarantine list; OSError if the file cannot be read.
    """
    try:
        with quiet():
            return _checked(file, size)
    except (UnreadableError, OSError):
        raise
    except Exception:  # pydicom raises whatever a damaged file leads it to
        raise UnreadableError(UNPARSABLE) from None


def _checked(file: BinaryIO, size: int) -> tuple[Dataset, UID]:
    file.seek(0)
    start = file.read(PREAMBLE_BYTES + 4)
    if not start:
        raise UnreadableError(EMPTY)
    if not is_dicom(start):
        raise UnreadableError(NOT_DICOM)
    if size > MAX_IMAGE_BYTES:
        raise UnreadableError(f"the file is larger than {MAX_IMAGE_BYTES >> 30} GiB, the most that is accepted")
    check_inflated_size(file)
    file.seek(0)
    found: list[PixelElement] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            found.append(PixelElement(int(tag), vr, length))
        return tag in PIXEL_TAGS

    dataset = read_partial(file, stop_when=at_pixels, force=True, specific_tags=TAGS)
    meta = getattr(dataset, "file_meta", None) or Dataset()
    syntax = UID(str(first_value(meta, "TransferSyntaxUID") or ""))
    media_class = first_value(meta, "MediaStorageSOPClassUID")
    if DIRECTORY in dataset or media_class == MediaStorageDirectoryStorage:
        raise UnreadableError("a DICOMDIR (the table of contents of a medium), which is no image")
    check_is_image(dataset, found[0] if found else None)
    remaining = None if syntax == DeflatedExplicitVRLittleEndian else size - file.tell()
    form = check_pixels_can_be_read(dataset, syntax, found[0], remaining)
    if syntax.is_encapsulated:
        check_compressed_frames(file, size, syntax, found[0], form)
    return dataset, syntax


def _header(dataset: Dataset, syntax: UID) -> InstanceHeader:
    # the file's meta information repeats the UID (PS3.10 7.1); some exporters write it only there
    instance_uid = text_of(dataset, "SOPInstanceUID") or text_of(dataset.file_meta, "MediaStorageSOPInstanceUID")
    if instance_uid is None:
        raise UnreadableError("the header lacks the SOP instance UID, so no label can belong to it")
    return InstanceHeader(
        sop_instance_uid=instance_uid,
        sop_class_uid=text_of(dataset, "SOPClassUID"),
        study_instance_uid=text_of(dataset, "StudyInstanceUID"),
        series_instance_uid=text_of(dataset, "SeriesInstanceUID"),
        patient_id=text_of(dataset, "PatientID"),
        sex=term_of(dataset, "PatientSex"),
        age_years=age_years(dataset),
        study_date=text_of(dataset, "StudyDate"),
        manufacturer=text_of(dataset, "Manufacturer"),
        protocol=text_of(dataset, "ProtocolName"),
        series_description=text_of(dataset, "SeriesDescription"),
        modality=term_of(dataset, "Modality"),
        body_part=term_of(dataset, "BodyPartExamined"),
        view=term_of(dataset, "ViewPosition"),
        transfer_syntax=str(syntax),
        photometric=term_of(dataset, "PhotometricInterpretation"),
        samples=whole_number(dataset, "SamplesPerPixel", 1),
        frames=whole_number(dataset, "NumberOfFrames", 1),
        rows=whole_number(dataset, "Rows", 0),
        columns=whole_number(dataset, "Columns", 0),
    )


def age_years(dataset: Dataset) -> float | None:
    """Return the age at the image: as the header states it, or from birth to the day of the imaging study."""
    age = re.fullmatch(r"(\d{1,3})([DWMY]?)", (text_of(dataset, "PatientAge") or "").upper())
    if age:
        return round(int(age[1]) / UNITS_IN_YEAR[age[2] or "Y"], 4)
    born, seen = (date_of(text_of(dataset, keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
    if born is None or seen is None or seen < born:
        return None
    return round((seen - born).days / DAYS_IN_YEAR, 4)


def date_of(text: str | None) -> date | None:
    """Return a header's date, also in the older form with points; None if it is none."""
    try:
        return datetime.strptime((text or "").replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None
