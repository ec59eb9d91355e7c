"""The strategy that a study names. Pure."""

from hub.aggregation.fedavg import FedAvg
from hub.aggregation.strategy import Strategy
from protocol.study import StudySpec


def strategy_of(study: StudySpec) -> Strategy:
    """Return the study's strategy with its constants."""
    chosen = {"fedavg": FedAvg}[study.strategy.name]
    return chosen(learning_rate=study.strategy.learning_rate, averaging=study.strategy.averaging)
