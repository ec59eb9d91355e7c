"""What a hospital lets its de-identified copies keep: deidentification.yaml in the site's folder, or a careful default.

modified_dates: true            # dates go back by a secret number of days for each patient; else they are removed
device_identity: false          # serial numbers, station names
patient_characteristics: true   # sex, age (over 89: 90), size, weight, smoking
clean_descriptors: true         # series and study descriptions, reduced to a list of safe words
burnt_in_text: clean            # or refuse: a picture with text is not copied at all
look_at: at_risk                # or everything: which pictures are searched for text
safe_private:                   # private attributes that the vendor says hold no person; everything else goes
- {creator: SIEMENS MR HEADER, group: 0x0019, elements: [0x0C, 0x0D]}
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import digest_of
from site_node.dicom.profile import Option

FILE_NAME = "deidentification.yaml"


class SafePrivate(BaseModel):
    """Private attributes of one creator that may stay: `elements` are the last two hexadecimal digits of their tags."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    creator: str = Field(min_length=1, max_length=64)
    group: int = Field(ge=9, le=0xFFFF)
    elements: tuple[int, ...] = Field(min_length=1)


class DeidentificationPolicy(BaseModel):
    """Which options of the profile apply; every default is the one that keeps less."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modified_dates: bool = False
    device_identity: bool = False
    patient_characteristics: bool = False
    clean_descriptors: bool = False
    words: tuple[str, ...] = ()
    safe_private: tuple[SafePrivate, ...] = ()
    burnt_in_text: Literal["clean", "refuse"] = "clean"
    look_at: Literal["at_risk", "everything"] = "at_risk"

    @property
    def options(self) -> frozenset[Option]:
        """Return the options that speak of attributes; clean pixel data is claimed of each picture looked at."""
        chosen = {
            Option.MODIFIED_DATES: self.modified_dates,
            Option.DEVICE_IDENTITY: self.device_identity,
            Option.PATIENT_CHARACTERISTICS: self.patient_characteristics,
            Option.CLEAN_DESCRIPTORS: self.clean_descriptors,
            Option.SAFE_PRIVATE: bool(self.safe_private),
        }
        return frozenset(option for option, is_on in chosen.items() if is_on)

    @property
    def digest(self) -> str:
        """Return the digest by which a journal knows that copies were made under the same policy."""
        return digest_of({"schema": "wardround.deidentification-policy/1", **self.model_dump(mode="json")})

    def allows_private(self, creator: str, tag: int) -> bool:
        """Tell whether a private attribute of this creator may stay."""
        return any(
            entry.creator == creator and entry.group == tag >> 16 and (tag & 0xFF) in entry.elements
            for entry in self.safe_private
        )
