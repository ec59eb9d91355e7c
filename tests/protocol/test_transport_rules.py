"""Which lists of steps go with what: each refused combination says why, and what to do."""

from typing import Any

import pytest

from protocol.compression.terms import keeps_residual, norm_factor
from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study

MASKS: dict[str, Any] = {
    "participants": {"minimum_sites": 4, "training_patients": 1000},
    "strategy": {"weighting": "equal"},
    "secure_aggregation": {"method": "masking", "maximum_sites": 8},
}
SHARED_NOISE: dict[str, Any] = {
    **MASKS,
    "strategy": {"weighting": "patients"},
    "secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 500},
    "training": {"local_steps": 1},
    "privacy": {"epsilon": 4.0, "mechanism": "shared-noise"},
}


def study_of(transport: dict[str, Any], **changes: Any) -> StudySpec:
    data: dict[str, Any] = {
        "name": "frugal",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 4,
        "privacy": {"epsilon": None},
        "transport": transport,
    }
    return parse_study(data | changes)


@pytest.mark.parametrize(
    ("transport", "changes", "words"),
    [
        ({"upload": ["brotli"]}, {}, "is no step"),
        ({"upload": ["zstandard", "half"]}, {}, "transport.upload: Steps stand in the order"),
        ({"download": ["quantise:1"]}, {}, "transport.download: .* 2 to 16 bits"),
        ({"upload": ["top-k:0.1"], "error_feedback": False}, {}, "need not converge"),
        ({"upload": ["zstandard"], "error_feedback": True}, {}, "lose nothing that could be kept"),
        ({"upload": [], "error_feedback": True}, MASKS, "lose nothing that could be kept"),
        ({"upload": ["top-k:0.1"]}, MASKS, "Use random-k"),
        ({"upload": ["quantise:8"]}, MASKS, "secure_aggregation.value_bits"),
        ({"upload": ["half"]}, MASKS, "secure_aggregation.value_bits"),
        ({"upload": ["random-k:0.1", "zstandard"]}, MASKS, "look like chance"),
        ({"upload": ["random-k:0.1"]}, SHARED_NOISE, "shared-noise sends one step's integers"),
        ({"download": ["zstandard"]}, {}, "Name a step that shortens them first"),
        ({"download": ["quantise:8"]}, {"strategy": {"averaging": 0.9}}, "no site holds"),
        ({"download": ["quantise:8"]}, {"strategy": {"name": "fedexp"}}, "no site holds"),
        ({"upload": ["top-k:0.1"]}, {"strategy": {"join": "median"}}, "mostly zero"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused_with_the_reason(
    transport: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecificationError, match=words):
        study_of(transport, **changes)


@pytest.mark.parametrize("method", ["masking", "homomorphic"])
def test_random_k_goes_with_sums_that_the_hub_cannot_read(method: str) -> None:
    hidden = {**MASKS, "secure_aggregation": {"method": method, "maximum_sites": 8}}
    assert study_of({"upload": ["random-k:0.1"]}, **hidden).transport.upload == ["random-k:0.1"]


def test_what_is_lost_is_kept_where_top_k_is_a_step_unless_said_otherwise() -> None:
    assert keeps_residual(study_of({"upload": ["top-k:0.1", "quantise:4"]}))
    assert not keeps_residual(study_of({"upload": ["random-k:0.1", "quantise:4"]}))
    assert keeps_residual(study_of({"upload": ["random-k:0.1"], "error_feedback": True}))


def test_an_update_may_be_as_much_longer_as_its_steps_can_make_it() -> None:
    assert norm_factor(study_of({})) == 1
    assert norm_factor(study_of({"upload": ["random-k:0.1"]})) == pytest.approx(10)
    assert norm_factor(study_of({"upload": ["top-k:0.1"]})) == pytest.approx(21)
    assert norm_factor(study_of({"upload": ["quantise:8"]})) == 4
