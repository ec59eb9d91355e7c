"""A key that would be silently ignored is refused, with what it needs."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study
from protocol.unused_keys import NEEDED, unused_keys

MASKED: dict[str, Any] = {
    "secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 100},
    "participants": {"minimum_sites": 6},
    "transport": {"upload": []},
}


def specification(**changes: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 3,
        "participants": {"minimum_sites": 10, "training_patients": 100},
        "privacy": {"epsilon": None},
        **changes,
    }


def problems(**changes: Any) -> list[str]:
    with pytest.raises(SpecificationError) as caught:
        parse_study(specification(**changes))
    return list(caught.value.problems)


MASKS: dict[str, Any] = {"kind": "segmentation", "network": {"name": "unet"}}


def masks(**label: Any) -> dict[str, Any]:
    return {**MASKS, "label": {"classes": ["background", "tumour"], **label}}


IGNORED: dict[str, tuple[dict[str, Any], str]] = {
    "label.column": (masks(column="tumour"), "learns from masks"),
    "label.patient_label": (masks(patient_label="all"), "learns from masks"),
    "label.patient_score": (masks(patient_score="max"), "learns from masks"),
    "regression.huber_delta": (
        {"kind": "regression", "label": {}, "regression": {"loss": "squared", "huber_delta": 0.2}},
        "regression.loss: huber",
    ),
    "training.momentum": ({"training": {"optimizer": "adam", "momentum": 0.9}}, "training.optimizer: sgd"),
    "training.step_rounds": ({"training": {"step_rounds": 3}}, "training.schedule: step"),
    "training.step_factor": ({"training": {"schedule": "cosine", "step_factor": 0.5}}, "training.schedule: step"),
    "training.proximal": ({"training": {"local_steps": 1, "proximal": 0.1}}, "local_steps above 1"),
    "strategy.momentum": ({"strategy": {"momentum": 0.5}}, "strategy.name: fedavgm"),
    "strategy.second_moment": ({"strategy": {"name": "fedavgm", "second_moment": 0.5}}, "fedadam or fedyogi"),
    "strategy.tau": ({"strategy": {"name": "fedavgm", "tau": 0.01}}, "fedadam, fedyogi or fedadagrad"),
    "strategy.wild_sites": ({"strategy": {"join": "geometric-median", "wild_sites": 2}}, "strategy.join: trimmed-mean"),
    "pace.maximum_staleness": ({"pace": {"maximum_staleness": 3}}, "pace.mode: buffered"),
    "pace.staleness_exponent": ({"pace": {"staleness_exponent": 1.0}}, "participants.late: fold"),
    "site_rates.least": ({"site_rates": {"least": 0.3}}, "set site_rates.adapt"),
    "site_rates.most": ({"site_rates": {"most": 3.0}}, "set site_rates.adapt"),
    "site_rates.from_round": ({"site_rates": {"from_round": 3}}, "set site_rates.adapt"),
    "privacy.honest_fraction": ({"privacy": {"epsilon": None, "honest_fraction": 0.5}}, "mechanism: shared-noise"),
    "privacy.update_norm": ({"privacy": {"epsilon": None, "update_norm": 0.5}}, "mechanism: site-level"),
    "privacy.update_norm_rate": ({"privacy": {"epsilon": None, "update_norm_rate": 0.5}}, "mechanism: site-level"),
    "privacy.update_quantile": ({"privacy": {"epsilon": None, "update_quantile": 0.7}}, "mechanism: site-level"),
    "secure_aggregation.maximum_sites": ({"secure_aggregation": {"maximum_sites": 8}}, "secure_aggregation.method"),
    "secure_aggregation.maximum_weight": ({"secure_aggregation": {"maximum_weight": 9}}, "secure_aggregation.method"),
    "secure_aggregation.value_range": ({"secure_aggregation": {"value_range": 2.0}}, "secure_aggregation.method"),
    "secure_aggregation.value_bits": ({"secure_aggregation": {"value_bits": 12}}, "secure_aggregation.method"),
    "secure_aggregation.phase_seconds": (
        {"secure_aggregation": {"phase_seconds": 9.0}, "evaluation": {"sum_under_masks": False}},
        "secure_aggregation.method",
    ),
}


@pytest.mark.parametrize("key", IGNORED)
def test_a_key_that_would_do_nothing_is_refused_with_what_it_needs(key: str) -> None:
    changes, remedy = IGNORED[key]
    [sentence] = [sentence for sentence in problems(**changes) if sentence.startswith(f"{key}: ")]
    assert remedy in sentence


def test_every_key_of_the_table_is_tried_here() -> None:
    assert {key for need in NEEDED for key in need.keys} == {*IGNORED, "site_rates.adapt"}


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"momentum": 0.9, "schedule": "step", "step_rounds": 2, "step_factor": 0.5}},
        {"strategy": {"name": "fedavgm", "momentum": 0.5}},
        {"strategy": {"name": "fedadam", "learning_rate": 0.1, "momentum": 0.5, "second_moment": 0.9, "tau": 0.01}},
        {"strategy": {"join": "krum", "weighting": "equal", "wild_sites": 0}, "participants": {"minimum_sites": 10}},
        {"pace": {"mode": "buffered", "buffer": 3, "maximum_staleness": 3, "staleness_exponent": 1.0}},
        {"pace": {"staleness_exponent": 1.0}, "participants": {"minimum_sites": 10, "late": "fold"}},
        {
            "site_rates": {"adapt": "quality", "quality_epsilon": 0.5, "least": 0.3, "most": 3.0, "from_round": 1},
            "rounds": 1,
        },
        {**MASKED, "secure_aggregation": {**MASKED["secure_aggregation"], "phase_seconds": 9.0, "value_bits": 12}},
        {"evaluation": {"sum_under_masks": True}, "secure_aggregation": {"phase_seconds": 9.0}},
    ],
)
def test_what_a_key_needs_makes_it_legal(changes: dict[str, Any]) -> None:
    assert parse_study(specification(**changes)).name == "s"


@pytest.mark.parametrize("bound", [{"most": 1.0}, {"least": 1.0}])
def test_factors_that_can_only_be_1_are_not_paid_for(bound: dict[str, float]) -> None:
    private = {"epsilon": 8.0, "delta": 1e-4}
    rates = {"adapt": "quality", "quality_epsilon": 0.5, **bound}
    [sentence] = problems(privacy=private, site_rates=rates)
    assert "every factor is 1" in sentence


@pytest.mark.parametrize("adapt", ["updates", "both"])
def test_one_round_has_no_earlier_updates_to_follow(adapt: str) -> None:
    noise = {"quality_epsilon": 0.5} if adapt == "both" else {}
    [sentence] = problems(rounds=1, site_rates={"adapt": adapt, "from_round": 1, **noise})
    assert "a study of one round has none" in sentence


def test_a_study_written_out_whole_is_the_same_study() -> None:
    study = parse_study(specification())
    written: dict[str, Any] = study.model_dump(mode="json", by_alias=True)
    assert written["strategy"]["tau"] == StudySpec.model_validate(specification()).strategy.tau
    assert parse_study(written).digest == study.digest
    assert unused_keys(study) == []
