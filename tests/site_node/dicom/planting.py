"""Datasets in which one attribute holds a value that is found again in a file's bytes."""

from io import BytesIO
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.pseudonyms import Pseudonyms

KEY = b"a key of this test, of 32 bytes!"
PSEUDONYMS = Pseudonyms(KEY)
BASIC = DeidentificationPolicy()
PLANT = "ZQXPLANT"
NUMBERS: dict[str, Any] = {"US": 54321, "UL": 54321, "SS": 4321, "SL": 54321, "FL": 54321.0, "FD": 54321.5}
OF_REFERENCES = (0x00081140, 0x00082112)  # sequences whose row says X/Z/U*: the UIDs in them are replaced
TEXTS = {
    **{"DA": "19530217", "DT": "19530217131415.926", "TM": "131415.926", "AS": "077Y", "PN": "Zqxplant^Zora"},
    **{"DS": "7654321.5", "IS": "7654321", "UR": "http://zqxplant.example", "UI": "1.2.826.0.1.3680043.9.54321.7"},
}


def planted(tag: int, *, as_vr: str | None = None) -> DataElement:
    """Return an element whose value is found again."""
    vr = as_vr or dictionary_VR(tag)
    if vr == "SQ":
        item = Dataset()
        if tag in OF_REFERENCES:
            item.ReferencedSOPInstanceUID = TEXTS["UI"]
            return DataElement(tag, "SQ", Sequence([item]))
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = PLANT, "99ZQX", f"{PLANT} meaning"
        item.PersonName = "Quilla^Zara"
        return DataElement(tag, "SQ", Sequence([item]))
    if vr in ("OB", "OW", "UN"):
        return DataElement(tag, vr, PLANT.encode() * 2)
    return DataElement(tag, vr, NUMBERS.get(vr, TEXTS.get(vr, PLANT)))


def needles(element: DataElement) -> list[bytes]:
    """Return what must not occur in the bytes of a copy, wherever."""
    if element.tag in OF_REFERENCES:
        return [TEXTS["UI"].encode()]
    if element.VR == "SQ":
        return [b"99ZQX", PLANT.encode(), b"Quilla"]
    return [element.value if isinstance(element.value, bytes) else str(element.value).encode()]


def ct(*elements: DataElement) -> Dataset:
    """Return a CT header with these elements beside what every header has."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "patient-1", "Mustermann^Max", "CT"
    for element in elements:
        dataset[element.tag] = element
    return dataset


def within(element: DataElement) -> DataElement:
    """Return a sequence that is kept, with the element in an item of an item."""
    inner, outer = Dataset(), Dataset()
    inner[element.tag] = element
    outer.add_new("FrameContentSequence", "SQ", [inner])
    return DataElement("SharedFunctionalGroupsSequence", "SQ", Sequence([outer]))


def written(dataset: Dataset) -> bytes:
    """Return a dataset as the bytes of a file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
