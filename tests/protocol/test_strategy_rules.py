"""What a study may not ask of its strategy; each refusal names the field, the reason and a remedy that works."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.strategy_rules import fewest_updates, krum_needs, trimmed_mean_needs
from protocol.study import StudySpec, parse_study

SITES = {"minimum_sites": 5, "quorum": 1.0, "training_patients": 500}
PRIVATE = {"epsilon": 8.0, "delta": 1e-4}
SITE_LEVEL = {
    "privacy": {**PRIVATE, "mechanism": "site-level", "unit": "site"},
    "participants": {**SITES, "minimum_sites": 10},
}


def study_of(strategy: dict[str, Any], **parts: Any) -> StudySpec:
    return parse_study(
        {
            "name": "tiny",
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "rounds": 2,
            "privacy": {"epsilon": None},
            "participants": SITES,
            **parts,
            "strategy": strategy,
        }
    )


def problems(strategy: dict[str, Any], **parts: Any) -> str:
    with pytest.raises(SpecificationError) as error:
        study_of(strategy, **parts)
    return str(error.value)


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ({"name": "fedavgm"}, {}),
        ({"name": "fedadam", "learning_rate": 0.1}, {}),
        ({"name": "fedyogi", "learning_rate": 0.01, "norm_limit": 2.0}, {}),
        ({"name": "fedadagrad", "learning_rate": 0.1, "join": "median", "weighting": "equal"}, {}),
        ({"name": "fedexp"}, {}),
        ({"name": "fedexp", "weighting": "noise"}, {"privacy": PRIVATE}),
        ({"name": "scaffold"}, {"privacy": PRIVATE}),
        ({"join": "krum", "weighting": "equal"}, {}),
        ({"join": "krum", "weighting": "equal"}, {"participants": {**SITES, "late": "fold"}}),
        ({"join": "multi-krum", "weighting": "equal"}, {}),
        ({"join": "trimmed-mean", "weighting": "equal", "wild_sites": 2}, {}),
        ({"join": "geometric-median", "norm_limit": 3.0}, {"privacy": PRIVATE}),
        ({"weighting": "noise"}, {"privacy": PRIVATE}),
        ({"weighting": "noise"}, {}),
    ],
)
def test_what_makes_sense_is_taken(strategy: dict[str, Any], parts: dict[str, Any]) -> None:
    study_of(strategy, **parts)


MASKED = {
    "transport": {"upload": []},
    "secure_aggregation": {"method": "masking", "maximum_sites": 8, "maximum_weight": 100},
    "participants": {**SITES, "minimum_sites": 6},
}


@pytest.mark.parametrize(
    "strategy", [{"name": "fedavgm"}, {"name": "fedadam", "learning_rate": 0.1}, {"name": "scaffold"}]
)
def test_a_step_that_needs_the_mean_alone_goes_with_masks(strategy: dict[str, Any]) -> None:
    study_of(strategy, **MASKED)


@pytest.mark.parametrize(
    ("strategy", "parts", "words"),
    [
        ({"join": "krum", "weighting": "equal", "wild_sites": 2}, {}, "'krum' needs 7 updates"),
        ({"join": "multi-krum", "weighting": "equal"}, {"participants": {**SITES, "quorum": 0.8}}, "close with 4"),
        ({"join": "trimmed-mean", "weighting": "equal", "wild_sites": 3}, {}, "needs 7 updates"),
        ({"join": "median", "weighting": "equal"}, {"participants": {**SITES, "quorum": 0.4}}, "needs 3 updates"),
        ({"join": "median"}, {}, "counts sites alike"),
        ({"join": "median", "weighting": "equal"}, {"pace": {"mode": "buffered", "buffer": 3}}, "being there once"),
        ({"name": "fedadam"}, {}, "larger than most weights"),
        ({"name": "fedexp", "learning_rate": 0.5}, {}, "Leave it at 1"),
        ({"name": "fedexp", "join": "median", "weighting": "equal"}, {}, "compares the updates with their mean"),
        ({"name": "fedexp", "weighting": "equal"}, {"privacy": PRIVATE}, "takes the known noise off"),
        ({"name": "fedexp"}, {"privacy": PRIVATE, "training": {"optimizer": "adam"}}, "knows the noise of sgd only"),
        ({"name": "scaffold", "norm_limit": 2.0}, {}, "as they were sent"),
        ({"name": "scaffold", "join": "median", "weighting": "equal"}, {}, "as they were sent"),
        ({"name": "scaffold"}, {"training": {"momentum": 0.5}}, "sgd without momentum"),
        ({"name": "scaffold"}, {"training": {"optimizer": "adam"}}, "sgd without momentum"),
        ({"name": "scaffold"}, {"training": {"proximal": 0.1}}, "learn the pull"),
        ({"name": "scaffold", "weighting": "equal"}, SITE_LEVEL, "off a site's own update"),
        ({"name": "scaffold"}, {"personal": {"keep": ["bias"]}}, "no mean for SCAFFOLD"),
        ({"weighting": "noise"}, {"privacy": PRIVATE, "training": {"optimizer": "adam"}}, "'noise' knows what"),
        ({"weighting": "noise"}, {"privacy": PRIVATE, "personal": {"keep": ["bias"]}}, "reckoned over all its values"),
        ({"name": "fedexp"}, {"privacy": PRIVATE, "personal": {"keep": ["bias"]}}, "reckoned over all its values"),
        ({"join": "krum", "weighting": "equal"}, MASKED, "compares single updates"),
        ({"name": "fedexp"}, MASKED, "needs the length of each update"),
        ({"norm_limit": 2.0}, MASKED, "needs the length of each update"),
        ({"weighting": "noise"}, MASKED, "needs the length of each update"),
    ],
)
def test_what_makes_none_is_refused_with_the_reason(
    strategy: dict[str, Any], parts: dict[str, Any], words: str
) -> None:
    assert words in problems(strategy, **parts)


def test_the_smallest_round_follows_from_minimum_and_quorum() -> None:
    assert fewest_updates(study_of({})) == 5
    assert fewest_updates(study_of({}, participants={**SITES, "quorum": 0.5})) == 3
    assert fewest_updates(study_of({}, participants={"minimum_sites": 100, "quorum": 0.07})) == 7


def test_the_numbers_of_the_papers() -> None:
    assert [krum_needs(wild) for wild in (0, 1, 2)] == [3, 5, 7]
    assert [trimmed_mean_needs(wild) for wild in (0, 1, 2)] == [1, 3, 5]
