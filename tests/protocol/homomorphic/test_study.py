"""What a study that adds ciphertexts may not ask for, each with its reason."""

from typing import Any

import pytest

from protocol.digest import digest_of
from protocol.errors import SpecificationError
from protocol.homomorphic.vector_form import form_of
from protocol.secure_aggregation.vector import vector_terms
from protocol.study import StudySpec, parse_study


def study(**secure: Any) -> StudySpec:
    data: dict[str, Any] = {
        "name": "encrypted",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 1,
        "strategy": {"weighting": "equal"},
        "participants": {"minimum_sites": secure.pop("minimum_sites", 4)},
        "privacy": {"epsilon": None},
        "transport": {"upload": secure.pop("upload", [])},
        "secure_aggregation": {"method": "homomorphic", "maximum_sites": 8, **secure},
    }
    return parse_study(data)


@pytest.mark.parametrize(
    ("value_bits", "maximum_sites"),
    [(None, 4), (None, 32), (2, 4), (8, 8), (8, 186), (12, 32), (20, 4), (20, 186)],
)
def test_every_width_that_a_study_may_ask_for_fits_a_slot(value_bits: int | None, maximum_sites: int) -> None:
    spec = study(maximum_sites=maximum_sites, value_bits=value_bits)
    form = form_of(vector_terms(spec, 1000), spec.digest, 1, digest_of("key"))
    assert form.packing.fields >= 1
    assert form.packing.largest_sum < 1 << form.packing.field_bits


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"maximum_sites": 187}, "at most 186 can"),
        ({"minimum_sites": 3}, "below 4"),
        ({"maximum_sites": None}, "maximum_sites: required"),
        ({"upload": ["zstandard"]}, "cannot be compressed"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecificationError, match=reason):
        study(**changes)
