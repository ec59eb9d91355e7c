"""Held-out counts under masks: a version's judging goes through the phases of a masked round, with keys of its own.

    EVALUATING   keys -> shares -> uploads (one message of counts each) -> seen -> reveals -> the sum is opened

What is missing costs the version its figures and never the study its course: below the threshold, past a deadline or
where masks do not cancel, the version stays unjudged and the next round begins. The sum is opened by `pooling.py`.
"""

from collections.abc import Sequence

from hub.rounds.asking import Turn, cancel_waiting
from hub.rounds.closing import Verdict
from hub.rounds.masking import (
    SILENT,
    SPOKEN_IN,
    fewest_vectors,
    fix_survivors,
    go_on,
    spoken_verdict,
    what_was_missing,
)
from hub.rounds.transitions import TaskState, is_waiting
from hub.storage.masking_stores import masking_round, who_has_spoken
from hub.storage.round_stores import TaskStanding
from hub.storage.tables import MaskingRoundRow, RoundRow, TaskRow
from protocol.secure_aggregation.histograms import sums_histograms
from protocol.secure_aggregation.phases import HubPhase
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.shared_noise import fewest_survivors
from protocol.study import StudySpec

UNJUDGED = "The version stays unjudged."


def judges_problem(study: StudySpec, asked: int) -> str | None:
    """Say why so many sites' held-out counts cannot be summed in secret, or None. In clear they are not asked for."""
    needed = max(FEWEST_MEMBERS, fewest_survivors(study))
    if not sums_histograms(study) or asked >= needed:
        return None
    return f"{asked} sites hold patients out; a sum under masks needs {needed}. {UNJUDGED}"


def judged_under_masks(turn: Turn, row: RoundRow) -> MaskingRoundRow | None:
    """Return the masks of a round's held-out counts, or None where the sites' reports are in clear."""
    return masking_round(turn.session, row.study, row.number, "evaluate")


def verdict(turn: Turn, row: RoundRow, masked: MaskingRoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
    """Say whether the present phase waits, is over, or has failed; WAIT while the sum is being opened."""
    phase = HubPhase(masked.phase)
    if phase in SPOKEN_IN:
        return spoken_verdict(turn, masked, tasks)
    if phase is not HubPhase.UPLOADS:
        return Verdict.WAIT
    accepted = sum(task.state == TaskState.ACCEPTED for task in tasks)
    waiting = sum(is_waiting(task.state) for task in tasks)
    if waiting and turn.now < row.deadline_at and accepted + waiting >= fewest_vectors(turn, masked):
        return Verdict.WAIT
    return Verdict.CLOSE if accepted >= fewest_vectors(turn, masked) else Verdict.FAIL


def why(turn: Turn, masked: MaskingRoundRow) -> str:
    """Say what was missing, after FAIL."""
    vectors = len(who_has_spoken(turn.session, masked, "vector"))
    return f"{what_was_missing(turn, masked, vectors)} {UNJUDGED}"


def step(turn: Turn, masked: MaskingRoundRow, tasks: Sequence[TaskRow]) -> bool:
    """Go on to the next phase; True once the sum can be opened."""
    if masked.phase != HubPhase.UPLOADS:
        return go_on(turn, masked, tasks)
    cancel_waiting(turn, tasks, SILENT.format(masked.phase))
    fix_survivors(turn, masked, [task.site for task in tasks if task.state == TaskState.ACCEPTED])
    return False
