"""The clock that wakes the coordinator, so that any process may be killed at any time.

One pass (`tick`) moves rounds whose deadline has come, and asks again for the close of rounds that have been left in
'aggregating' (a lost queue entry, a killed worker): recovery never waits for the broker. It also frees the disk of
transfers that came too late. A pass that is repeated, or made by two processes at once, does no harm: each step checks
the state in its own transaction.
"""

import asyncio
from dataclasses import dataclass, field

import structlog

from hub.rounds.asking import turn_on
from hub.rounds.closing import Verdict
from hub.rounds.coordinator import advance, verdict_of
from hub.rounds.transitions import OPEN_ROUND_STATES, RoundState
from hub.rounds.uploads import refuse_late
from hub.rounds.worker_orders import AGGREGATE
from hub.services import Services
from hub.storage import round_stores
from hub.storage.database import Session
from hub.storage.masking_stores import masked_judgings
from hub.studies.lifecycle import StudyState
from protocol.secure_aggregation.phases import HubPhase

TICK_SECONDS = 1.0
REMIND_AFTER_SECONDS = 10.0
LONGEST_REMINDER_SECONDS = 600.0
_log = structlog.get_logger()


@dataclass
class Reminders:
    """When each close may be asked for again; each wait is twice the one before, because a large close takes long."""

    due: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    def ready(self, key: tuple[str, int], since: float, now: float) -> bool:
        """Tell whether it is time to ask (again), and if so, note it."""
        due, wait = self.due.get(key, (since + REMIND_AFTER_SECONDS, REMIND_AFTER_SECONDS))
        if now < due <= now + LONGEST_REMINDER_SECONDS:  # later than that: the clock was set back meanwhile
            return False
        wait = min(2 * wait, LONGEST_REMINDER_SECONDS)
        self.due[key] = (now + wait, wait)
        return True

    def forget_others(self, open_keys: set[tuple[str, int]]) -> None:
        """Drop what is closed."""
        self.due = {key: value for key, value in self.due.items() if key in open_keys}


def tick(services: Services, reminders: Reminders | None = None) -> int:
    """Make one pass and return how many rounds and transfers were moved."""
    reminders = Reminders() if reminders is None else reminders
    moved = refuse_late(services)
    for study in _due(services):
        with services.transaction() as session:
            moved += advance(session, services, study)
    for study, number, since in _aggregating(services, reminders):
        if reminders.ready((study, number), since, services.clock()):
            _log.warning("close_asked_again", round=number)
            services.enqueue(AGGREGATE, {"study": study, "round": number})
            moved += 1
    return moved


async def watch_deadlines(services: Services, every_seconds: float = TICK_SECONDS) -> None:
    """Make passes until cancelled; a pass that fails is logged, and the next one is made."""
    reminders = Reminders()
    while True:
        try:
            await asyncio.to_thread(tick, services, reminders)
        except Exception:
            _log.exception("deadline_pass_failed")
        await asyncio.sleep(every_seconds)


def _due(services: Services) -> list[str]:
    """Return the running studies whose newest round is to be moved; read-only, so that waiting costs no write lock."""
    found = []
    with services.reading() as session:
        for row in round_stores.rounds_in(session, sorted(OPEN_ROUND_STATES)):
            turn = turn_on(session, services, row.study)
            if turn.study.state == StudyState.RUNNING and verdict_of(turn, row) is not Verdict.WAIT:
                found.append(row.study)
    return found


def _aggregating(services: Services, reminders: Reminders) -> list[tuple[str, int, float]]:
    with services.reading() as session:
        rows = round_stores.rounds_in(session, [RoundState.AGGREGATING.value])
        found = [(row.study, row.number, row.phase_at) for row in rows]
        found += _counts_to_open(session, services)
    reminders.forget_others({(study, number) for study, number, _ in found})
    return found


def _counts_to_open(session: Session, services: Services) -> list[tuple[str, int, float]]:
    """Return the judged rounds whose sum of held-out counts can be opened and was not yet, and since when."""
    found = []
    for masked in masked_judgings(session, HubPhase.OPENED):
        if round_stores.round_of(session, masked.study, masked.round).state == RoundState.EVALUATING:
            patience = turn_on(session, services, masked.study).spec.secure_aggregation.phase_seconds
            found.append((masked.study, masked.round, masked.deadline_at - patience))
    return found
