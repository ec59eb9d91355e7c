"""When a round may leave its phase. Pure: counts and the clock go in, a verdict comes out.

Training closes when all asked sites have answered, or at the deadline, if the accepted updates reach the quorum. Below
the quorum the round stays open past its deadline (overdue) until the quorum is there or all have answered; if all have
answered and the quorum is missed, it fails. Judging ends when all have answered or at its deadline. In buffered rounds
a version is made as soon as enough updates wait, whoever sent them.

    >>> training_verdict(Standing(asked=3, accepted=2, waiting=1, overdue=True), quorum=0.5).value
    'close'
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hub.rounds.transitions import TaskState, is_waiting

# 0.07 * 100 is a hair above 7 in binary; the quorum that a person wrote is meant.
QUORUM_DECIMALS = 9


class Verdict(StrEnum):
    """What is to be done with the round."""

    WAIT = "wait"
    CLOSE = "close"
    FAIL = "fail"
    ASK_NEXT = "ask-next"


@dataclass(frozen=True)
class Standing:
    """How the asked sites stand: how many answers were taken, how many are awaited, and whether time is up."""

    asked: int
    accepted: int
    waiting: int
    overdue: bool


def standing_of(states: Iterable[str], *, overdue: bool) -> Standing:
    """Count the states of one round's tasks of one kind; they may have been counted already (`Counter`)."""
    counted = Counter(states)
    return Standing(
        asked=counted.total(),
        accepted=counted[TaskState.ACCEPTED.value],
        waiting=sum(tasks for state, tasks in counted.items() if is_waiting(state)),
        overdue=overdue,
    )


def needed_updates(asked: int, quorum: float) -> int:
    """Return how many accepted updates make the quorum: at least one."""
    return max(1, math.ceil(round(quorum * asked, QUORUM_DECIMALS)))


def training_verdict(standing: Standing, quorum: float, least: int = 1) -> Verdict:
    """Say whether training goes on, closes or has failed; `least`: the fewest updates that can be joined at all."""
    reached = standing.accepted >= max(least, needed_updates(standing.asked, quorum))
    if standing.waiting == 0:
        return Verdict.CLOSE if reached else Verdict.FAIL
    return Verdict.CLOSE if standing.overdue and reached else Verdict.WAIT


def buffered_verdict(standing: Standing, buffer: int, quorum: float) -> Verdict:
    """Say whether a buffer of updates makes a version: when it is full, or when no more can be hoped for.

    `standing.accepted` counts the updates that wait, of any round; `standing.asked` the sites that train or have done.
    At the deadline, or when nobody trains any more, fewer updates do, down to the quorum of the sites.
    """
    least = min(buffer, needed_updates(standing.asked, quorum))
    if standing.accepted >= buffer:
        return Verdict.CLOSE
    if standing.waiting == 0:
        return Verdict.CLOSE if standing.accepted >= least else Verdict.FAIL
    return Verdict.CLOSE if standing.overdue and standing.accepted >= least else Verdict.WAIT


def judging_verdict(standing: Standing) -> Verdict:
    """Say whether held-out reports are still awaited; a version does not fail for want of judges."""
    return Verdict.CLOSE if standing.waiting == 0 or standing.overdue else Verdict.WAIT


def initialising_verdict(standing: Standing, candidates_left: int) -> Verdict:
    """Say whether version 0 is still awaited, or the next site is to be asked, or none is left.

    A silent last candidate is waited for: nobody else could do it.
    """
    if standing.accepted:
        return Verdict.CLOSE
    if standing.waiting and not (standing.overdue and candidates_left):
        return Verdict.WAIT
    return Verdict.ASK_NEXT if candidates_left else Verdict.FAIL
