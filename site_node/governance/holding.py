"""What keeps new work from beginning: the whole site paused, drained, or the hours in which it trains not come.

    paused          nothing runs, nothing is decided, nothing leaves; what was begun is done again after `resume`
    draining        no task and no count of a cohort begins; what was begun is finished and leaves; people still decide
    outside-hours   no training begins; what was begun is finished and leaves, and all else goes on

A task that is held waits: it is neither accepted nor refused, and spends nothing. Its deadline goes on, so that the
site may come too late for it, as any site may. The two switches are kept in the gate's database
(`switches.py`).
"""

import sqlite3
from dataclasses import dataclass
from typing import Literal

from protocol.messages import TaskKind
from site_node.governance import switches
from site_node.governance.masking_records import open_rounds
from site_node.governance.records import is_paused, set_paused, task_records
from site_node.training_hours import TrainHours, may_train

Hold = Literal["paused", "draining", "outside-hours"]


@dataclass(frozen=True)
class Remaining:
    """What a site that is drained has still to do."""

    tasks: int
    masked_rounds: int
    messages: int

    def __bool__(self) -> bool:
        """Tell whether there is anything."""
        return bool(self.tasks or self.masked_rounds or self.messages)


def hold_on(kind: TaskKind, *, paused: bool, draining: bool, may_train_now: bool) -> Hold | None:
    """Return what keeps a task of a kind from beginning now, or None. Pure.

    >>> hold_on(TaskKind.EVALUATE, paused=False, draining=False, may_train_now=False)
    >>> hold_on(TaskKind.TRAIN, paused=False, draining=False, may_train_now=False)
    'outside-hours'
    """
    if paused:
        return "paused"
    if draining:
        return "draining"
    return "outside-hours" if kind is TaskKind.TRAIN and not may_train_now else None


def hold_now(database: sqlite3.Connection, hours: TrainHours | None, kind: TaskKind, now: float) -> Hold | None:
    """Return what keeps a task of a kind from beginning at this site now, or None."""
    paused, draining = is_paused(database), is_draining(database)
    return hold_on(kind, paused=paused, draining=draining, may_train_now=may_train(hours, now))


def is_draining(database: sqlite3.Connection) -> bool:
    """Tell whether the administrator lets nothing new begin."""
    return switches.is_on(database, "draining")


def drain(database: sqlite3.Connection) -> None:
    """Let nothing new begin; a paused site goes on with what was begun."""
    switches.turn(database, "draining", on=True)
    set_paused(database, False)


def resume(database: sqlite3.Connection) -> None:
    """Let everything go on."""
    set_paused(database, False)
    switches.turn(database, "draining", on=False)


def remaining(database: sqlite3.Connection) -> Remaining:
    """Return what was begun and has not ended, and what has not left."""
    return Remaining(
        len(task_records(database, "accepted")),
        len(open_rounds(database)),
        int(database.execute("SELECT COUNT(*) FROM unsent").fetchone()[0]),
    )
