from dataclasses import dataclass
from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.study import StudySpec, parse_study
from protocol.study_rules import problems_of

MASKED = {"method": "masking", "maximum_sites": 8, "maximum_weight": 1000}


def specification(**changes: Any) -> dict[str, Any]:
    return {
        "name": "s",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 4,
        "participants": {"minimum_sites": 10, "training_patients": 100},
        "privacy": {"epsilon": None},
        **changes,
    }


def private(mechanism: str, **terms: Any) -> dict[str, Any]:
    return {"epsilon": 8.0, "delta": 1e-4, "mechanism": mechanism, **terms}


SITE_LEVEL = {"privacy": private("site-level", unit="site"), "strategy": {"weighting": "equal"}}
SHARED = {
    "privacy": private("shared-noise"),
    "training": {"local_steps": 1},
    "secure_aggregation": MASKED,
    "transport": {"upload": []},
}


@dataclass(frozen=True)
class Refusal:
    changes: dict[str, Any]
    words: str


REFUSED = {
    "a length of rounds that is stated twice": Refusal({"training": {"local_steps": 3, "local_epochs": 1}}, "once"),
    "a length of rounds that is not stated": Refusal({"training": {"local_steps": None}}, "stated once"),
    "epochs of too many steps": Refusal({"training": {"local_epochs": 100, "sampling_rate": 1e-4}}, "1000000 steps"),
    "a warm-up that never ends": Refusal({"training": {"warm_up_rounds": 4}}, "none at the full learning rate"),
    "a pull in shared steps": Refusal(
        {**SHARED, "training": {"local_steps": 1, "proximal": 0.1}}, "nothing to pull back from"
    ),
    "two ways to a personal model": Refusal({"personal": {"keep": ["normalisation"], "ditto": 0.1}}, "one personal"),
    "tensors that stay under site-level privacy": Refusal(
        {**SITE_LEVEL, "personal": {"keep": ["bias"]}}, "tell of its"
    ),
    "a personal model with shared noise": Refusal({**SHARED, "personal": {"ditto": 1.0}}, "tell of its patients"),
    "judging half a model": Refusal({"personal": {"keep": ["bias"], "judged": "global"}}, "no whole model"),
    "a choice without personal models": Refusal({"personal": {"judged": "global"}}, "no personal models"),
    "normalisation's tensors where there is none": Refusal(
        {"personal": {"keep": ["normalisation"]}, "network": {"name": "convnet", "normalisation": "none"}},
        "has no such tensors",
    ),
    "the best of versions that sites have no personal models of": Refusal(
        {"personal": {"ditto": 1.0}, "evaluation": {"final_version": "best-validation"}}, "Set it to last"
    ),
    "patience with personal models, which ends a study with an earlier version": Refusal(
        {"personal": {"keep": ["normalisation"]}, "evaluation": {"patience": 2}}, "ends with its best version"
    ),
    "a pull that swings ever wider": Refusal({"training": {"proximal": 20.0}}, "Lower it below 20, or lower"),
    "a pull on the personal model that does": Refusal({"personal": {"ditto": 25.0}}, "personal.ditto: each step"),
    "a pull beside weight decay that does": Refusal(
        {"training": {"proximal": 19.5, "weight_decay": 0.5}}, "Lower it below 19.5"
    ),
    "a pull with momentum that does": Refusal({"training": {"proximal": 38.0, "momentum": 0.9}}, "below 38"),
    "a pull that does at the hospital with the highest rate": Refusal(
        {"training": {"proximal": 5.0}, "site_rates": {"adapt": "updates", "most": 4.0}}, "Lower it below 5,"
    ),
    "a pattern that is no tensor's name": Refusal({"personal": {"keep": ["../secret"]}}, "personal.keep"),
}


@pytest.mark.parametrize("refusal", REFUSED.values(), ids=REFUSED.keys())
def test_a_study_is_refused_with_the_reason_that_asks_for(refusal: Refusal) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_study(specification(**refusal.changes))
    assert refusal.words in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"local_epochs": 2, "warm_up_rounds": 3, "schedule": "linear", "proximal": 0.01}},
        {"personal": {"keep": ["normalisation", "head.*"]}, "privacy": private("dp-sgd")},
        {
            "personal": {"ditto": 0.1, "judged": "global"},
            "evaluation": {"final_version": "best-validation", "patience": 2},
        },
        {"personal": {"keep": ["normalisation"]}, "network": {"name": "convnet", "normalisation": "batch"}},
        {"training": {"proximal": 19.9}},
        {"training": {"proximal": 37.9, "momentum": 0.9}, "personal": {"ditto": 37.9}},
        {"training": {"proximal": 4.9}, "site_rates": {"adapt": "updates", "most": 4.0}},
        {"training": {"proximal": 1000.0, "optimizer": "adam"}},
    ],
)
def test_a_study_may_ask_for(changes: dict[str, Any]) -> None:
    study = parse_study(specification(**changes))
    assert parse_study(study.model_dump(mode="json", by_alias=True)).digest == study.digest


def test_epochs_are_what_noise_is_calibrated_for() -> None:
    stated = _noise(training={"local_steps": 20, "sampling_rate": 0.1})
    assert _noise(training={"local_epochs": 2, "sampling_rate": 0.1}) == stated


def test_the_steps_of_a_personal_model_are_charged_too() -> None:
    once = parse_study(specification(privacy=private("dp-sgd"), training={"local_steps": 10}))
    both = parse_study(specification(privacy=private("dp-sgd"), training={"local_steps": 10}, personal={"ditto": 1.0}))
    noise = noise_multiplier_of(both)
    assert noise is not None
    assert noise == _noise(training={"local_steps": 20})
    assert training_event(both, noise, 4).count == 2 * training_event(once, noise, 4).count == 80
    assert epsilon_of([training_event(both, noise, 4)], 1e-4) <= 8.0
    assert both.maximum_steps == 80


def _noise(**changes: Any) -> float | None:
    study: StudySpec = parse_study(specification(privacy=private("dp-sgd"), **changes))
    return noise_multiplier_of(study)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.0, 0.5), (0.9, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("side", [0.999, 1.001])
def test_the_limit_of_a_pull_is_where_the_steps_begin_to_swing_wider(
    momentum: float, decay: float, side: float
) -> None:
    rate = 0.1
    pull = side * (2 * (1 + momentum) / rate - decay)
    training = {"proximal": pull, "momentum": momentum, "weight_decay": decay, "learning_rate": rate}
    weight, speed, seen = 1.0, 0.0, list[float]()
    for _ in range(40_000):  # SGD of no loss but the pull to 0, as PyTorch takes its steps
        speed = momentum * speed + (pull + decay) * weight
        weight -= rate * speed
        seen.append(abs(weight))
        if weight > 1e9:
            break
    assert (seen[-1] > 1e6) == (side > 1)
    problems = problems_of(StudySpec.model_validate(specification(training=training)))
    assert any(problem.startswith("training.proximal: ") for problem in problems) == (side > 1)
