"""PS3.15 Annex E, Table E.1-1: which attribute identifies a person, and what the profile and its options do to it.

Source: DICOM PS3.15 Table E.1-1 (Application Level Confidentiality Profile Attributes), all 621 rows, read from
confidentiality_profile.json; the codes of the options are those of PS3.16 CID 7050. See ATTRIBUTION.md beside.
Convention: one row asks for one action under one set of options. Two options that both speak of an attribute do not
conflict: to keep goes before to clean. The forms with a slash are resolved by the attribute's type in PS3.3.

>>> row_of(0x00100010).basic
'Z'
"""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

TABLE = "confidentiality_profile.json"
TYPES = "attribute_types.json"


class Option(StrEnum):
    """An option of the profile that is offered here, by its column in the table."""

    MODIFIED_DATES = "rtnLongModifDatesOpt"
    DEVICE_IDENTITY = "rtnDevIdOpt"
    PATIENT_CHARACTERISTICS = "rtnPatCharsOpt"
    CLEAN_DESCRIPTORS = "cleanDescOpt"
    SAFE_PRIVATE = "rtnSafePrivOpt"
    CLEAN_PIXEL_DATA = "cleanPixelDataOpt"  # says nothing of any attribute: no column of the table


BASIC_PROFILE = ("113100", "Basic Application Confidentiality Profile")
CODES: Mapping[Option, tuple[str, str]] = {
    Option.CLEAN_PIXEL_DATA: ("113101", "Clean Pixel Data Option"),
    Option.CLEAN_DESCRIPTORS: ("113105", "Clean Descriptors Option"),
    Option.MODIFIED_DATES: ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.PATIENT_CHARACTERISTICS: ("113108", "Retain Patient Characteristics Option"),
    Option.DEVICE_IDENTITY: ("113109", "Retain Device Identity Option"),
    Option.SAFE_PRIVATE: ("113111", "Retain Safe Private Option"),
}


class Action(StrEnum):
    """What happens to one attribute, by the standard's letter."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    KEEP = "K"
    CLEAN = "C"
    NEW_UID = "U"


@dataclass(frozen=True)
class Row:
    """One row of the table: an attribute's action in the basic profile, and what options make of it."""

    name: str
    tag: str
    basic: str
    options: Mapping[str, str]

    def action(self, chosen: Set[Option], attribute_type: str | None = None) -> Action:
        """Return the action under these options; `attribute_type` is that of PS3.3 (1, 1C, 2, 2C, 3) if known."""
        letters = {self.options[option] for option in chosen if option in self.options}
        for letter in (Action.KEEP, Action.CLEAN):
            if letter in letters:
                return letter
        return self.basic_action(attribute_type)

    def basic_action(self, attribute_type: str | None = None) -> Action:
        """Return the action of the basic profile alone.

        Guarantee: of the forms with a slash, the one that PS3.3 needs. Where the type is not known, the last form: it
            fits every type, and like the others leaves nothing of the original value.
        """
        forms = [Action(letter) for letter in self.basic.replace("*", "").split("/")]
        if len(forms) == 1 or attribute_type is None:
            return forms[-1]
        if attribute_type == "3":
            return forms[0]
        return next((f for f in forms if f is Action.EMPTY), forms[-1]) if attribute_type[0] == "2" else forms[-1]


@cache
def rows() -> tuple[Row, ...]:
    """Return the table, in its own order."""
    return tuple(
        Row(
            name=entry["name"],
            tag=entry["id"],
            basic=entry["basicProfile"],
            options={column: letter for column, letter in entry.items() if column.endswith("Opt")},
        )
        for entry in json.loads((files("site_node.dicom") / TABLE).read_text(encoding="utf-8"))
    )


def row_of(tag: int) -> Row | None:
    """Return the row that speaks of a tag, or None: private, curve and overlay tags have a row for all of them."""
    row = _rows_by_tag().get(tag)
    if row is not None:
        return row
    group = tag >> 16
    if group % 2:
        return _rows_by_pattern()["ggggeeee-where-gggg-is-odd"]
    if group >> 8 == 0x50:
        return _rows_by_pattern()["50xxxxxx"]
    return _rows_by_pattern().get(f"60xx{tag & 0xFFFF:04x}") if group >> 8 == 0x60 else None


def type_of(sop_class: str | None, keyword: str) -> str | None:
    """Return the type that PS3.3 gives an attribute of conditional action at the top level, or None if not known.

    None too if the SOP class is known and does not hold the attribute: it is there all the same.
    """
    names, types = _types()
    return types.get(names.get(sop_class or "", ""), {}).get(keyword)


@cache
def _rows_by_tag() -> Mapping[int, Row]:
    return {int(row.tag, 16): row for row in rows() if "x" not in row.tag and len(row.tag) == 8}


@cache
def _rows_by_pattern() -> Mapping[str, Row]:
    return {row.tag: row for row in rows() if "x" in row.tag or len(row.tag) != 8}


@cache
def _types() -> tuple[Mapping[str, str], Mapping[str, Mapping[str, str]]]:
    document = json.loads((files("site_node.dicom") / TYPES).read_text(encoding="utf-8"))
    return document["sop_classes"], document["types"]
