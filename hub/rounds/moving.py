"""Add a round and move it from state to state: apply the table, save, audit. In the caller's transaction."""

from collections.abc import Mapping

from hub.rounds.asking import Turn
from hub.rounds.transitions import OPEN_ROUND_STATES, RoundEvent, RoundState, next_round_state
from hub.storage.tables import RoundRow


def add_round(
    turn: Turn,
    number: int,
    state: RoundState,
    seconds: float | None = None,
    recorded: Mapping[str, object] | None = None,
) -> RoundRow:
    """Add a round whose first phase has so many seconds (None: the study's deadline); `recorded` goes to the audit."""
    row = RoundRow(
        study=turn.study.digest,
        number=number,
        state=state.value,
        opened_at=turn.now,
        deadline_at=turn.now + (turn.spec.participants.deadline_seconds if seconds is None else seconds),
        phase_at=turn.now,
    )
    turn.session.add(row)
    turn.session.flush()
    details: dict[str, object] = {"study": row.study, "round": number, **(recorded or {})}
    turn.audit("hub", f"round.{state.value}", f"{turn.study.name}.r{number}", details)
    return row


def move_round(turn: Turn, row: RoundRow, event: RoundEvent, reason: str = "", seconds: float | None = None) -> None:
    """Apply an event to a round, and audit it. The phase that follows has so many seconds; None: the study's deadline.

    Raises: StateError if the event is not legal in the round's state.
    """
    state = next_round_state(row.state, event)
    row.state, row.reason, row.phase_at = state.value, reason, turn.now
    if state in OPEN_ROUND_STATES:
        row.deadline_at = turn.now + (turn.spec.participants.deadline_seconds if seconds is None else seconds)
    else:
        row.ended_at = turn.now
    details: dict[str, object] = {"study": row.study, "round": row.number, "event": event.value, "reason": reason}
    turn.audit("hub", f"round.{state.value}", f"{turn.study.name}.r{row.number}", details)
