"""The strategy that a study names. Pure."""

from hub.aggregation.adaptive_clipping import AdaptiveClipping
from hub.aggregation.fedavg import FedAvg
from hub.aggregation.noised_descent import NoisedDescent
from hub.aggregation.strategy import Strategy
from protocol.study import StudySpec


def strategy_of(study: StudySpec) -> Strategy:
    """Return the study's strategy with its constants."""
    if study.privacy.mechanism == "shared-noise":
        return NoisedDescent(study)
    if study.privacy.mechanism == "site-level":
        return AdaptiveClipping(FedAvg(study.strategy.learning_rate, study.strategy.averaging), study.privacy)
    chosen = {"fedavg": FedAvg}[study.strategy.name]
    return chosen(learning_rate=study.strategy.learning_rate, averaging=study.strategy.averaging)
