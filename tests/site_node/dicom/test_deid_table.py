"""All 621 rows of PS3.15 Table E.1-1, at the top and nested, read from the table and not from our rules."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from site_node.dicom.attribute_values import DUMMIES
from site_node.dicom.deidentification import deidentify
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from tests.site_node.dicom.planting import (
    BASIC,
    OF_REFERENCES,
    PLANT,
    PSEUDONYMS,
    TEXTS,
    ct,
    needles,
    planted,
    within,
    written,
)

TABLE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "site_node/dicom/confidentiality_profile.json").read_text(encoding="utf-8")
)
ORDINARY = [row for row in TABLE if len(row["id"]) == 8 and "x" not in row["id"]]
WRITTEN_ANEW = {"00100010", "00100020"}  # the patient's name and id become the code
NAMES = [row["id"] for row in ORDINARY]
TEXTUAL = [row for row in ORDINARY if dictionary_VR(int(row["id"], 16)) not in ("SQ", "US", "UL", "SS", "FL", "FD")]
OPTION_COLUMNS = {
    "rtnLongModifDatesOpt": DeidentificationPolicy(modified_dates=True),
    "rtnDevIdOpt": DeidentificationPolicy(device_identity=True),
    "rtnPatCharsOpt": DeidentificationPolicy(patient_characteristics=True),
    "cleanDescOpt": DeidentificationPolicy(clean_descriptors=True),
}


def letter_of(original: DataElement, copy: Dataset) -> str:
    """Say which of the standard's actions was taken, by what is there."""
    if original.tag not in copy:
        return "X"
    found = copy[original.tag]
    if found.is_empty:
        return "Z"
    if found.VR == "UI":
        return "U" if found.value != original.value else "K"
    if found.tag in OF_REFERENCES:
        return "U" if found.value[0].ReferencedSOPInstanceUID != TEXTS["UI"] else "K"
    if found.VR == "SQ":
        return "K" if PLANT in str(found.value) else "D"
    return "D" if found.value == DataElement(found.tag, found.VR, DUMMIES[found.VR]).value else "K"


def test_the_table_is_whole() -> None:
    assert len(TABLE) == 621
    assert len(ORDINARY) == 617  # and private attributes, curves, overlay data, overlay comments


@pytest.mark.parametrize("row", ORDINARY, ids=NAMES)
def test_the_basic_profile_does_to_each_attribute_what_its_row_says(row: dict[str, Any]) -> None:
    element = planted(int(row["id"], 16))
    source = ct(element)
    copy = deidentify(source, BASIC, PSEUDONYMS).dataset
    if element.tag.group < 8:  # of commands, file meta information and media directories: none of them in a dataset
        assert element.tag not in copy
    elif row["id"] in WRITTEN_ANEW:
        assert copy[element.tag].value == PSEUDONYMS.patient_code(str(source.PatientID))
    elif row["basicProfile"] == "D" and element.VR == "UI":
        assert letter_of(element, copy) == "U"  # another UID is a dummy too
    else:
        assert letter_of(element, copy) in row["basicProfile"].replace("*", "").split("/")
    assert not any(needle in written(copy) for needle in needles(element))


@pytest.mark.parametrize("row", ORDINARY, ids=NAMES)
def test_nothing_is_left_of_an_attribute_two_sequences_deep(row: dict[str, Any]) -> None:
    element = planted(int(row["id"], 16))
    copy = deidentify(ct(within(element)), BASIC, PSEUDONYMS).dataset
    inner = copy.SharedFunctionalGroupsSequence[0].FrameContentSequence[0]
    allowed = {*row["basicProfile"].replace("*", "").split("/"), *("U" if element.VR == "UI" else "")}
    assert letter_of(element, inner) in (allowed if element.tag.group >= 8 else {"X"})
    assert not any(needle in written(copy) for needle in needles(element))


@pytest.mark.parametrize("row", TEXTUAL, ids=[row["id"] for row in TEXTUAL])
def test_a_false_vr_hides_nothing(row: dict[str, Any]) -> None:
    tag = int(row["id"], 16)
    hidden = needles(planted(tag))[0]
    copy = deidentify(ct(DataElement(tag, "UN", hidden)), BASIC, PSEUDONYMS).dataset
    assert hidden not in written(copy)


@pytest.mark.parametrize(
    ("column", "row"),
    [(column, row) for column in OPTION_COLUMNS for row in ORDINARY if column in row],
    ids=lambda value: value["id"] if isinstance(value, dict) else value,
)
def test_each_option_keeps_or_cleans_what_its_column_says(column: str, row: dict[str, Any]) -> None:
    element = planted(int(row["id"], 16))
    copy = deidentify(ct(element), OPTION_COLUMNS[column], PSEUDONYMS).dataset
    if row[column] == "K":
        assert str(copy[element.tag].value) == str(element.value) or element.VR == "SQ"
        assert letter_of(element, copy) == "K"
    else:  # cleaned: a moved date, safe words, or what the basic profile does where nothing can be cleaned
        assert element.VR == "TM" or not any(needle in written(copy) for needle in needles(element))


@pytest.mark.parametrize("group", [0x5000, 0x5002, 0x501E, 0x6000, 0x6002, 0x601E])
@pytest.mark.parametrize("element", [0x0022, 0x0010, 0x2500, 0x3000, 0x4000])
def test_of_curves_and_overlays_nothing_stays(group: int, element: int) -> None:
    source = ct(
        DataElement(
            Tag(group, element), "LO" if element != 0x3000 else "OW", PLANT if element != 0x3000 else b"ZQXPLANT"
        )
    )
    copy = deidentify(source, BASIC, PSEUDONYMS).dataset
    assert all(tag.group >> 8 not in (0x50, 0x60) for tag in copy.keys())  # noqa: SIM118 - the values are elements
    assert PLANT.encode() not in written(copy)


def test_private_attributes_go_also_from_sequences() -> None:
    source = ct()
    source.private_block(0x0019, "ACME", create=True).add_new(0x01, "LO", PLANT)
    item = Dataset()
    item.private_block(0x0021, "ACME", create=True).add_new(0x02, "SQ", [ct()])
    source.add_new("SharedFunctionalGroupsSequence", "SQ", [item])
    copy = deidentify(source, BASIC, PSEUDONYMS).dataset
    assert PLANT.encode() not in written(copy)
    assert b"ACME" not in written(copy)
    assert not any(element.tag.is_private for element in copy.iterall())


@settings(max_examples=60)
@given(
    chosen=st.lists(st.sampled_from(TEXTUAL), min_size=1, max_size=12, unique_by=lambda row: str(row["id"])),
    depth=st.integers(0, 4),
    dates=st.booleans(),
    words=st.booleans(),
    number=st.integers(10**9, 10**10 - 1),
)
def test_no_planted_value_occurs_in_the_bytes_of_a_copy(
    chosen: list[dict[str, Any]], depth: int, dates: bool, words: bool, number: int
) -> None:
    text = f"Q{number}Q"
    item = Dataset()
    for row in chosen:
        tag = int(row["id"], 16)
        vr = dictionary_VR(tag)
        value = {"UI": f"1.2.826.{number}", "DS": str(number), "IS": str(number)[:9], "PN": f"{text}^{text}"}.get(
            vr, text
        )
        if vr in ("OB", "OW", "UN"):
            item[tag] = DataElement(tag, vr, text.encode() + b"\0")
        elif vr not in ("DA", "DT", "TM", "AS"):
            item[tag] = DataElement(tag, vr, value)
        else:
            item[tag] = DataElement(tag, vr, TEXTS[vr])
    for _ in range(depth):
        outer = Dataset()
        outer.add_new("SharedFunctionalGroupsSequence", "SQ", [item])
        item = outer
    source = ct(*item)
    policy = DeidentificationPolicy(modified_dates=dates, clean_descriptors=words)
    content = written(deidentify(source, policy, PSEUDONYMS).dataset)
    for needle in (text, f"1.2.826.{number}", str(number)[:9], "19530217"):
        assert needle.encode() not in content
