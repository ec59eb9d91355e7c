"""One DICOM file in, one de-identified file out, as bytes: header, pixels, claim and encoding."""

from dataclasses import dataclass
from io import BytesIO

import pydicom

from site_node.dicom.deidentification import claim, deidentify
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentification_report import Report
from site_node.dicom.headers import PREAMBLE_BYTES, is_dicom
from site_node.dicom.pixel_cleaning import clean_pixels
from site_node.dicom.pixel_element import PIXEL_TAGS
from site_node.dicom.profile import Option
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.dicom.quiet import quiet
from site_node.errors import DeidentificationError


@dataclass(frozen=True)
class DeidentifiedFile:
    """A copy's bytes, by what names it is known, and what became of each attribute."""

    content: bytes
    patient: str
    imaging_study: str
    series: str
    instance: str
    report: Report


def deidentified_file(
    content: bytes, policy: DeidentificationPolicy, pseudonyms: Pseudonyms, patient_id: str | None = None
) -> DeidentifiedFile:
    """De-identify one file of images.

    Guarantee: the same bytes, policy and key give the same bytes; no exception other than the one below, and no warning
        of the DICOM library leaks.
    Raises: DeidentificationError with a sentence that names the fault and never a patient.
    """
    try:
        with quiet():
            return _file(content, policy, pseudonyms, patient_id)
    except DeidentificationError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        raise DeidentificationError("damaged: it cannot be read and written again") from error


def _file(
    content: bytes, policy: DeidentificationPolicy, pseudonyms: Pseudonyms, patient_id: str | None
) -> DeidentifiedFile:
    if not is_dicom(content[: PREAMBLE_BYTES + 4]):
        raise DeidentificationError("not a DICOM file")
    source = pydicom.dcmread(BytesIO(content), force=True)
    if "EncapsulatedDocument" in source or not any(tag in source for tag in PIXEL_TAGS):
        raise DeidentificationError("no image: what documents, reports and plans say cannot be cleaned here")
    made = deidentify(source, policy, pseudonyms, patient_id)
    copy = made.dataset
    if clean_pixels(copy, source, policy, made.report):
        claim(copy, policy.options | {Option.CLEAN_PIXEL_DATA})
    written = BytesIO()
    copy.save_as(written, enforce_file_format=True)
    return DeidentifiedFile(
        content=written.getvalue(),
        patient=str(copy.PatientID),
        imaging_study=str(copy.get("StudyInstanceUID") or ""),
        series=str(copy.get("SeriesInstanceUID") or ""),
        instance=str(copy.SOPInstanceUID),
        report=made.report,
    )
