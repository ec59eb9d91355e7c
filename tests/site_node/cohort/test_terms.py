"""Header terms compared whatever their spelling."""

import pytest

from site_node.cohort.terms import SYNONYMS, begins_with, holds_words, same_term


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
