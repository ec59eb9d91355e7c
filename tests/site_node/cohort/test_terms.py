"""Header terms compared whatever their spelling."""

import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from site_node.cohort.terms import BODY_PART, MODALITY, SYNONYMS, VIEW, begins_with, holds_words, same_term, words_of

DEFINED_REGIONS = {
    "ABDOMENPELVIS", "ACJOINT", "ANKLE", "ARM", "BILEDUCT", "CHESTABDOMEN", "CHESTABDPELVIS", "CSPINE",
    "CTSPINE", "ELBOW", "HEADNECK", "HIP", "IAC", "JAW", "LARGEINTESTINE", "LEG", "LSPINE", "LSSPINE", "MASTOID",
    "NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "OPTICCANAL", "PAROTID", "SCJOINT", "SELLA", "SIJOINT",
    "SMALLINTESTINE", "SSPINE", "SUBMANDIBULAR", "TLSPINE", "TMJ", "TSPINE", "WHOLEBODY", "WRIST",
}  # fmt: skip
"""Defined terms of PS3.16 Table L-1 that are no meaning of a code; no installed package carries that table."""
DEFINED_VIEWS = {"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"}
"""PS3.3 Table C.8-1: all there are for humans."""
OURS = {
    "LUMBOSACRAL SPINE": "CID 4 writes it with a hyphen",
    "ANTEROPOSTERIOR": "CID 4010 writes it with a hyphen",
    "POSTEROANTERIOR": "CID 4010 writes it with a hyphen",
    "ANTERIOR POSTERIOR": "PS3.3 Table C.8-1 calls AP so",
    "POSTERIOR ANTERIOR": "PS3.3 Table C.8-1 calls PA so",
    "LEFT LATERAL DECUBITUS": "PS3.3 Table C.8-1 calls LLD so",
    "RIGHT LATERAL DECUBITUS": "PS3.3 Table C.8-1 calls RLD so",
    "LEFT LATERAL OBLIQUE": "PS3.3 Table C.8-1 calls LLO so",
    "RIGHT LATERAL OBLIQUE": "PS3.3 Table C.8-1 calls RLO so",
}
RETIRED_MODALITIES = {"DS", "CF", "DF", "VF", "MA", "MS", "EC", "CD", "DD", "ST"}
"""PS3.3 C.7.3.1.1.1 lists them as retired."""


def of_group(number: int) -> dict[str, str]:
    """Return the values of a context group of PS3.16, as pydicom has it, with their meanings as words."""
    found = {}
    for scheme, names in cid_concepts[number].items():
        for name in names:
            for value, (meaning, groups) in concepts[scheme][name].items():
                if number in groups:
                    found[value] = " ".join(words_of(meaning))
    return found


@pytest.mark.parametrize(
    ("kind", "written", "means"),
    [
        ("modality", "dx ", "DX"),
        ("modality", "MA", "MR"),
        ("body part", "Thorax", "CHEST"),
        ("body part", "thoracic_spine", "TSPINE"),
        ("body part", "T SPINE", "TSPINE"),
        ("body part", "Chest, abdomen and pelvis", "CHESTABDPELVIS"),
        ("body part", "LUNG", "LUNG"),
        ("view", "Antero-posterior", "AP"),
        ("view", "left lateral", "LL"),
        ("view", "LATERAL", "LATERAL"),
        ("sex", "female", "F"),
    ],
)
def test_a_term_means_the_standard_s(kind: str, written: str, means: str) -> None:
    assert same_term(kind, written) == means


@pytest.mark.parametrize("kind", sorted(SYNONYMS))
def test_what_a_synonym_stands_for_stands_for_itself(kind: str) -> None:
    assert all(same_term(kind, means) == means for means in SYNONYMS[kind].values())
    assert all(" ".join(word.split()) == word.upper() for word in SYNONYMS[kind])


def test_a_manufacturer_is_known_by_the_words_it_begins_with() -> None:
    assert begins_with("GE MEDICAL SYSTEMS", "ge")
    assert begins_with("Siemens-Healthineers", "siemens healthineers")
    assert not begins_with("GENERAL", "GE")
    assert not begins_with("PHILIPS", "")


def test_free_text_holds_a_term_if_it_holds_its_words() -> None:
    assert holds_words("t1_mprage-SAG p2", "sag T1")
    assert not holds_words("T1W", "T1")
    assert not holds_words("T1", " ")


def test_every_body_part_is_the_standard_s() -> None:
    meanings = {*of_group(4).values(), *of_group(4031).values()}
    assert len(meanings) > 300
    assert {word for word in BODY_PART if word not in OURS} <= meanings
    assert {term for term in BODY_PART.values() if term not in meanings} <= DEFINED_REGIONS
    assert set(BODY_PART.values()) >= DEFINED_REGIONS  # a list that grows beyond its use would hide a misspelt term
    assert all(len(term) <= 16 and term.isalnum() for term in BODY_PART.values())  # what a CS can hold


def test_every_view_is_the_standard_s() -> None:
    meanings = set(of_group(4010).values())
    assert {word for word in VIEW if word not in OURS} <= meanings
    assert set(VIEW.values()) == DEFINED_VIEWS


def test_every_modality_is_the_standard_s() -> None:
    assert set(MODALITY) == RETIRED_MODALITIES
    assert not RETIRED_MODALITIES & of_group(29).keys()
    assert set(MODALITY.values()) <= of_group(29).keys()


def test_what_is_ours_is_used_and_has_its_reason() -> None:
    assert OURS.keys() <= BODY_PART.keys() | VIEW.keys()
    assert all(OURS.values())


@pytest.mark.parametrize(
    ("kind", "written", "means"),
    [
        ("body part", "Lumbo-sacral spine", "LSSPINE"),
        ("body part", "WHOLE BODY", "WHOLEBODY"),
        ("body part", "entire body", "WHOLEBODY"),
        ("body part", "Hip joint", "HIP"),
        ("view", "Left lateral decubitus", "LLD"),
        ("view", "Anterior/Posterior", "AP"),
    ],
)
def test_a_meaning_is_the_defined_term(kind: str, written: str, means: str) -> None:
    assert same_term(kind, written) == means == same_term(kind, means)
