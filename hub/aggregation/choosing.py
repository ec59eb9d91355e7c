"""The strategy that a study names: two tables, of joinings and of the hub's steps. Pure."""

from collections.abc import Callable
from functools import partial

from hub.aggregation.adaptive_clipping import AdaptiveClipping
from hub.aggregation.composed import Composed
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.fedavgm import FedAvgM
from hub.aggregation.fedexp import FedExp
from hub.aggregation.fedopt import FedOpt, SecondMoment, adagrad, adam, yogi
from hub.aggregation.iterate_mean import ExponentialMean, IterateMean, LastTwo
from hub.aggregation.joining import Joining, Mean, Weighting
from hub.aggregation.noised_descent import NoisedDescent
from hub.aggregation.robust.geometric_median import GeometricMedian
from hub.aggregation.robust.krum import Krum
from hub.aggregation.robust.median import Median
from hub.aggregation.robust.norm_limit import NormLimit
from hub.aggregation.robust.trimmed_mean import TrimmedMean
from hub.aggregation.scaffold import Scaffold
from hub.aggregation.server_step import ServerStep
from hub.aggregation.strategy import Strategy
from hub.aggregation.weighting import AsSent, InverseNoise
from protocol.study import StudySpec


def strategy_of(study: StudySpec) -> Strategy:
    """Return the study's strategy with its constants."""
    strategy = Composed(_joining(study), STEPS[study.strategy.name](study), _released(study))
    return AdaptiveClipping(strategy, study.privacy) if study.privacy.mechanism == "site-level" else strategy


def _joining(study: StudySpec) -> Joining:
    if study.privacy.mechanism == "shared-noise":
        return NoisedDescent(study)
    joining, limit = JOININGS[study.strategy.join](study), study.strategy.norm_limit
    return joining if limit is None else NormLimit(joining, limit)


def _weighting(study: StudySpec) -> Weighting:
    return InverseNoise(study) if study.strategy.weighting == "noise" else AsSent()


def _released(study: StudySpec) -> IterateMean | None:
    if study.strategy.averaging:
        return ExponentialMean(study.strategy.averaging)
    return LastTwo() if study.strategy.name == "fedexp" else None


def _fedavg(study: StudySpec) -> FedAvg:
    return FedAvg(study.strategy.learning_rate)


def _adaptive(study: StudySpec, second_moment: SecondMoment) -> FedOpt:
    terms = study.strategy
    return FedOpt(second_moment, terms.learning_rate, terms.momentum, terms.second_moment, terms.tau)


JOININGS: dict[str, Callable[[StudySpec], Joining]] = {
    "mean": lambda study: Mean(_weighting(study)),
    "median": lambda study: Median(),
    "trimmed-mean": lambda study: TrimmedMean(study.strategy.wild_sites),
    "krum": lambda study: Krum(study.strategy.wild_sites),
    "multi-krum": lambda study: Krum(study.strategy.wild_sites, several=True),
    "geometric-median": lambda study: GeometricMedian(_weighting(study)),
}
STEPS: dict[str, Callable[[StudySpec], ServerStep]] = {
    "fedavg": _fedavg,
    "fedavgm": lambda study: FedAvgM(study.strategy.learning_rate, study.strategy.momentum),
    "fedadam": partial(_adaptive, second_moment=adam),
    "fedyogi": partial(_adaptive, second_moment=yogi),
    "fedadagrad": partial(_adaptive, second_moment=adagrad),
    "fedexp": FedExp,
    "scaffold": lambda study: Scaffold(_fedavg(study), study),
}
