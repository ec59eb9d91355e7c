"""What an update says was spent, held against the accountant: each statement once, whoever repeats it.

The sites of a round state the same account, and state it again after a lost answer; an API process that is started
anew has forgotten what it computed. So the hub looks where it costs least first:

    this process found it true before         a look into a bounded memory
    an accepted update of the study says so   one query: whoever accepted it had compared it
    neither                                   the accountant composes the events, once

What is false is never remembered as true: it comes to the accountant again, which keeps its compositions.

A true account may be an old one. Its events' digest says of how many training tasks it is, without the accountant; a
site that was given more has spent more, and an account of fewer is refused before anybody looks whether it is true.
"""

import threading
from collections import OrderedDict
from functools import lru_cache

from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.tables import StudyRow
from hub.studies.specification import stored_study
from protocol.digest import digest_of
from protocol.messages import PrivacySpent, UpdateNotice, expect
from protocol.privacy_accounting import epsilon_of, training_events
from protocol.signing import read_unverified

TOLERANCE = 1e-6
KEPT_STATEMENTS = 4096
Statement = tuple[str, float | None, float, float, str]
"""Study, its noise multiplier, epsilon, delta, digest of the events."""


class TrueStatements:
    """The newest statements that this process found true, up to a bound. They are facts: they never become false."""

    def __init__(self, most: int = KEPT_STATEMENTS) -> None:
        self._most, self._lock = most, threading.Lock()
        self._kept: OrderedDict[Statement, None] = OrderedDict()

    def __contains__(self, statement: Statement) -> bool:
        with self._lock:
            return statement in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, statement: Statement) -> None:
        """Keep a statement; the oldest is dropped beyond the bound."""
        with self._lock:
            self._kept[statement] = None
            self._kept.move_to_end(statement)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all, as a process that ends."""
        with self._lock:
            self._kept.clear()


TRUE_STATEMENTS = TrueStatements()


def is_known(session: Session, study: StudyRow, account: PrivacySpent) -> bool:
    """Tell whether this account was found true before, in this process or for an update that was accepted."""
    statement = _statement(study, account)
    if statement in TRUE_STATEMENTS:
        return True
    for notice in round_stores.notices_that_state(session, study.digest, account.epsilon, account.delta):
        if expect(read_unverified(notice), UpdateNotice).privacy == account:  # verified when it came
            TRUE_STATEMENTS.add(statement)
            return True
    return False


def statement_problem(study: StudyRow, account: PrivacySpent, given: int, *, known: bool) -> str | None:
    """Say why an account cannot be that of a site's training task of sequence `given`, or None. `known`: by `is_known`.

    The sequence counts the site's own tasks: who was not asked in each round has spent less. More is possible: a hub
    that was restored from a backup counts from what it knows.
    Slow if not known (a composition): call it outside of a transaction.
    """
    noise = study.noise_multiplier
    tasks = None if noise is None else _tasks_with(study.specification, noise, account.events_digest, given)
    if noise is None or tasks is None:
        return "The events of the privacy spent are not those of any number of this study's tasks."
    if tasks < given:
        stated = f"{tasks} training task" + ("s" if tasks > 1 else "")
        return f"The update states the privacy spent by {stated}; the site was given {given}."
    return None if known else _epsilon_problem(study, account, noise, tasks)


def _epsilon_problem(study: StudyRow, account: PrivacySpent, noise: float, tasks: int) -> str | None:
    spec = stored_study(study.specification)
    epsilon = epsilon_of(training_events(spec, noise, tasks), spec.privacy.delta)
    if abs(epsilon - account.epsilon) > TOLERANCE * max(1.0, epsilon):
        return f"The update states epsilon {account.epsilon:.4g}; its events give {epsilon:.4g}."
    TRUE_STATEMENTS.add(_statement(study, account))
    return None


def _statement(study: StudyRow, account: PrivacySpent) -> Statement:
    return (study.digest, study.noise_multiplier, account.epsilon, account.delta, account.events_digest)


@lru_cache(maxsize=256)
def _tasks_with(specification: bytes, noise: float, events_digest: str, about: int) -> int | None:
    """Return the number of tasks whose events have this digest, looking near `about` first; None if none has."""
    spec = stored_study(specification)
    for tasks in sorted(range(1, spec.maximum_training_tasks + 1), key=lambda number: abs(number - about)):
        events = training_events(spec, noise, tasks)
        if digest_of([event.model_dump(mode="json", by_alias=True) for event in events]) == events_digest:
            return tasks
    return None
