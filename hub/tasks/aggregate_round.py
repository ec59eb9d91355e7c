"""The task that closes a round; any worker can take it, any number of times."""

from celery import Celery

from hub.rounds.committing import close_round
from hub.rounds.worker_orders import AGGREGATE
from hub.services import Services

__all__ = ["add_aggregate_round", "close_round"]


def add_aggregate_round(app: Celery, services: Services) -> None:
    """Register the task at an application."""

    def aggregate(study: str, round: int) -> None:  # noqa: A002 - the queue's word
        close_round(services, study, round)

    app.task(name=AGGREGATE, acks_late=True)(aggregate)
