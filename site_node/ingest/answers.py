"""What a PACS answers to a query, the same whether it came by C-FIND or by QIDO-RS. Pure.

A PACS may leave out whatever it was not obliged to tell: what it does not say is None here, and decides nothing.
Source: DICOM PS3.4 C.6.2 (Study Root Query/Retrieve Information Model), PS3.18 10.6 (Search Transaction).
"""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from site_node.dicom.element_value import term_of, text_of
from site_node.dicom.headers import age_years


@dataclass(frozen=True)
class FoundStudy:
    """One imaging study as the PACS describes it. All of it stays at the hospital, and out of logs."""

    uid: str
    accession: str | None
    modalities: tuple[str, ...]
    study_date: str | None
    sex: str | None
    age_years: float | None
    announced: int | None


@dataclass(frozen=True)
class FoundSeries:
    """One series of an imaging study."""

    uid: str
    modality: str | None
    body_part: str | None
    manufacturer: str | None = None
    protocol: str | None = None
    series_description: str | None = None


@dataclass(frozen=True)
class FoundInstance:
    """One instance of a series; `sop_class` is None where the PACS does not tell it."""

    uid: str
    sop_class: str | None


def study_of(answer: Dataset) -> FoundStudy | None:
    """Read an answer at the level of imaging studies; None if it does not say which one."""
    uid = text_of(answer, "StudyInstanceUID")
    if uid is None:
        return None
    return FoundStudy(
        uid=uid,
        accession=text_of(answer, "AccessionNumber"),
        modalities=_terms(answer, "ModalitiesInStudy"),
        study_date=text_of(answer, "StudyDate"),
        sex=term_of(answer, "PatientSex"),
        age_years=age_years(answer),
        announced=_number(answer, "NumberOfStudyRelatedInstances"),
    )


def series_of(answer: Dataset) -> FoundSeries | None:
    """Read an answer at the level of series; None if it does not say which one."""
    uid = text_of(answer, "SeriesInstanceUID")
    if uid is None:
        return None
    return FoundSeries(
        uid,
        term_of(answer, "Modality"),
        term_of(answer, "BodyPartExamined"),
        manufacturer=text_of(answer, "Manufacturer"),
        protocol=text_of(answer, "ProtocolName"),
        series_description=text_of(answer, "SeriesDescription"),
    )


def instance_of(answer: Dataset) -> FoundInstance | None:
    """Read an answer at the level of instances; None if it does not say which one."""
    uid = text_of(answer, "SOPInstanceUID")
    return FoundInstance(uid, text_of(answer, "SOPClassUID")) if uid else None


def _terms(answer: Dataset, keyword: str) -> tuple[str, ...]:
    try:
        value = answer.get(keyword)
    except Exception:  # a value that its own VR forbids raises on access
        return ()
    several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    words = (str(one).strip().upper() for one in (value if several else [value]) if one is not None)
    return tuple(word for word in words if word)


def _number(answer: Dataset, keyword: str) -> int | None:
    text = text_of(answer, keyword) or ""
    return int(text) if text.isdecimal() else None
