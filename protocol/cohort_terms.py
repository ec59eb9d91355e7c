"""Which images take part in a study: its criteria, by DICOM header terms."""

from datetime import date
from typing import Literal

from pydantic import Field

from protocol.study_parts import Part


class Cohort(Part):
    """Which images take part, by DICOM header terms; an empty list leaves that criterion open."""

    modality: list[str] = Field(default=[], description="DICOM Modality (0008,0060), any of these: DX, CR, CT, MR ...")
    body_part: list[str] = Field(default=[], description="Body Part Examined (0018,0015), any of these")
    view: list[str] = Field(default=[], description="View Position (0018,5101), any of these: AP, PA ...")
    manufacturer: list[str] = Field(
        default=[], description="Manufacturer (0008,0070), beginning with the words of any of these: GE, Siemens ..."
    )
    protocol: list[str] = Field(
        default=[], description="Protocol Name (0018,1030), holding all words of any of these, in any order"
    )
    series_description: list[str] = Field(
        default=[], description="Series Description (0008,103E), holding all words of any of these, in any order"
    )
    date_from: date | None = Field(default=None, description="Study Date (0008,0020) on this day or later")
    date_until: date | None = Field(default=None, description="Study Date (0008,0020) on this day or earlier")
    age_min_years: int | None = Field(default=None, ge=0, le=130)
    age_max_years: int | None = Field(default=None, ge=0, le=130)
    sex: list[Literal["F", "M", "O"]] = Field(default=[], description="Patient's Sex (0010,0040), any of these")
    minimum_patients: int = Field(default=10, ge=1, description="a site with fewer training patients does not train")
    single_class: Literal["evaluate", "train"] = Field(
        default="evaluate",
        description="a site whose training patients are all of one class (survival: without an event): "
        "evaluates only, or trains",
    )
