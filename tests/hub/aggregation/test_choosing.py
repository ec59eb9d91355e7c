"""Every strategy that a study can name is there, and is put together as it says."""

from typing import Any, get_args

import pytest

from hub.aggregation.adaptive_clipping import AdaptiveClipping
from hub.aggregation.choosing import JOININGS, STEPS, strategy_of
from hub.aggregation.composed import Composed
from hub.aggregation.fedavgm import FedAvgM
from hub.aggregation.fedopt import FedOpt, yogi
from hub.aggregation.iterate_mean import ExponentialMean, LastTwo
from hub.aggregation.joining import Mean
from hub.aggregation.robust.krum import Krum
from hub.aggregation.robust.norm_limit import NormLimit
from hub.aggregation.weighting import InverseNoise
from protocol.strategy_rules import COUNT_ALIKE, NEEDS
from protocol.study import parse_study
from protocol.study_parts import Strategy
from tests.hub.conftest import specification


def composed(**strategy: Any) -> Composed:
    sites = {"minimum_sites": 10, "quorum": 1.0}
    found = strategy_of(parse_study(specification(strategy=strategy, participants=sites)))
    assert isinstance(found, Composed)
    return found


def test_the_tables_have_what_a_study_can_name() -> None:
    fields = Strategy.model_fields
    assert set(STEPS) == set(get_args(fields["name"].annotation))
    assert set(JOININGS) == set(get_args(fields["join"].annotation))


def test_the_rules_know_every_robust_joining() -> None:
    assert set(JOININGS) - {"mean"} == set(NEEDS) > COUNT_ALIKE


def test_constants_reach_their_place() -> None:
    assert composed(name="fedavgm", learning_rate=0.5, momentum=0.7).step == FedAvgM(0.5, 0.7)
    terms = {"learning_rate": 0.1, "momentum": 0.8, "second_moment": 0.95, "tau": 0.01}
    assert composed(name="fedyogi", **terms).step == FedOpt(yogi, 0.1, 0.8, 0.95, 0.01)
    krum = composed(join="multi-krum", weighting="equal", wild_sites=2, norm_limit=3.0).joining
    assert krum == NormLimit(Krum(2, several=True), 3.0)


@pytest.mark.parametrize(
    ("strategy", "released"),
    [
        ({}, None),
        ({"name": "fedexp"}, LastTwo()),
        ({"averaging": 0.9}, ExponentialMean(0.9)),
        ({"name": "fedexp", "averaging": 0.9}, ExponentialMean(0.9)),
    ],
)
def test_what_is_released_is_what_the_study_says(strategy: dict[str, Any], released: object) -> None:
    assert composed(**strategy).mean == released
    assert parse_study(specification(strategy=strategy)).strategy.releases_mean == (released is not None)


def test_weights_by_noise_are_the_joining_s() -> None:
    joining = composed(weighting="noise").joining
    assert isinstance(joining, Mean)
    assert isinstance(joining.weighting, InverseNoise)


def test_with_sites_as_units_the_length_goes_beside_any_strategy() -> None:
    study = specification(
        strategy={"name": "fedavgm", "weighting": "equal"},
        privacy={"unit": "site", "mechanism": "site-level", "epsilon": 100.0, "delta": 1e-4},
        participants={"minimum_sites": 10, "training_patients": 100},
    )
    found = strategy_of(parse_study(study))
    assert isinstance(found, AdaptiveClipping)
    assert isinstance(found.strategy, Composed)
    assert found.strategy.step == FedAvgM(1.0, 0.9)
