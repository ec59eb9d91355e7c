"""De-identify a DICOM dataset by PS3.15 Annex E: pure, on values alone; pixels are `pixel_cleaning.py`'s matter.

Source: DICOM PS3.15 Annex E (2024e): E.1.1 (de-identifier), Table E.1-1, E.3 (options); PS3.3 C.7.1.1 and C.12.1.1 for
what the copy says of itself.
Convention: beyond the table, whatever the standard does not list goes if it is private, unknown, a person's name, a
date, a time, long text or an address; what stays is text in UTF-8. Of curves and overlays nothing stays. Text that the
standard lets stay is emptied all the same if it repeats a name or number of the patient.
"""

from collections.abc import Set
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.dicom.attribute_rules import AttributeRules
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentification_report import Report
from site_node.dicom.element_value import text_of
from site_node.dicom.profile import BASIC_PROFILE, CODES, Option
from site_node.dicom.pseudonyms import Pseudonyms
from site_node.dicom.quiet import quiet
from site_node.dicom.repeated_names import names_of
from site_node.errors import DeidentificationError

UTF_8 = "ISO_IR 192"
METHOD = "Wardround: DICOM PS3.15 Table E.1-1"


@dataclass(frozen=True)
class Deidentified:
    """A copy without the patient, and what became of each attribute."""

    dataset: Dataset
    report: Report


def deidentify(
    source: Dataset, policy: DeidentificationPolicy, pseudonyms: Pseudonyms, patient_id: str | None = None
) -> Deidentified:
    """Return a copy of a dataset without what identifies the patient; the source is left as it is.

    `patient_id` stands in where the site knows the patient by another name than the header.
    Guarantee: the same source, policy and key give the same copy, and a copy is its own copy. UIDs are replaced alike
        in all files, so that references still resolve. Pixel data is carried over as it is.
    Raises: DeidentificationError if the object cannot be copied safely at all.
    """
    with quiet():  # damaged values are dropped and counted
        patient = patient_id or _patient_of(source)
        sop_class = text_of(source, "SOPClassUID")
        rules = AttributeRules(policy, pseudonyms, patient, sop_class, names_of(source))
        copy = rules.copy_of(source)
        _say_who(copy, pseudonyms.patient_code(patient))
        claim(copy, policy.options)
        copy.file_meta = _file_meta(source, copy, pseudonyms)
    return Deidentified(copy, rules.report)


def claim(copy: Dataset, options: Set[Option]) -> None:
    """Write into a copy what was done to it, in words and in the codes of PS3.16 CID 7050."""
    codes = [BASIC_PROFILE, *sorted(CODES[option] for option in options)]
    copy.PatientIdentityRemoved = "YES"
    copy.DeidentificationMethod = METHOD
    copy.DeidentificationMethodCodeSequence = Sequence(_coded(value, meaning) for value, meaning in codes)
    copy.LongitudinalTemporalInformationModified = "MODIFIED" if Option.MODIFIED_DATES in options else "REMOVED"
    if Option.CLEAN_PIXEL_DATA in options:
        copy.BurnedInAnnotation = "NO"


def _coded(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _patient_of(source: Dataset) -> str:
    """Return the patient's id; without one each imaging study is a patient of its own, so that no two become one."""
    return text_of(source, "PatientID") or "no patient id: " + (
        text_of(source, "StudyInstanceUID") or text_of(source, "SOPInstanceUID") or ""
    )


def _say_who(copy: Dataset, code: str) -> None:
    copy.PatientID = code
    copy.PatientName = code
    copy.SpecificCharacterSet = UTF_8


def _file_meta(source: Dataset, copy: Dataset, pseudonyms: Pseudonyms) -> FileMetaDataset:
    """Return file meta information made anew: the old one names application entities and may hold private text."""
    old = getattr(source, "file_meta", None) or Dataset()
    instance = text_of(source, "SOPInstanceUID") or text_of(old, "MediaStorageSOPInstanceUID")
    sop_class = text_of(source, "SOPClassUID") or text_of(old, "MediaStorageSOPClassUID")
    if instance is None or sop_class is None:
        raise DeidentificationError("the header lacks its SOP class or SOP instance UID")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = copy.SOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID = UID(pseudonyms.uid(instance))
    meta.TransferSyntaxUID = _transfer_syntax(source, old)
    return meta


def _transfer_syntax(source: Dataset, old: Dataset) -> UID:
    said = UID(text_of(old, "TransferSyntaxUID") or "")
    if said and (said.is_private or not said.is_transfer_syntax):
        raise DeidentificationError("encoded in a way that is unknown or private to a manufacturer (transfer syntax)")
    if said:
        return said
    implicit, little = source.original_encoding
    if little is False:
        return ExplicitVRBigEndian
    return ExplicitVRLittleEndian if implicit is False else ImplicitVRLittleEndian
