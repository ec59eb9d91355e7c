"""When the hub cannot read the updates: the sites open their sum, between training and the round's close.

A round whose study names a method of secure aggregation goes TRAINING -> OPENING -> AGGREGATING. What happens on the
way is the method's own; this file says what every method offers. All of it but `sum_of` works in the coordinator's
transaction, after each message of a site and by the clock, and keeps its state in the database:

    open      a training round was opened and its sites were asked
    verdict   WAIT; CLOSE: the present phase is over; FAIL: the round cannot be saved. In TRAINING and in OPENING
    step      after CLOSE: go on to the method's next phase and return False; True once the round itself may move:
              from TRAINING to OPENING (all uploads are in), from OPENING to AGGREGATING (the sum can be opened)
    begin     the round has just entered OPENING: post what the sites need now
    end       the round has failed or was abandoned
    prepare   outside any transaction, in the hub's worker, while the round is OPENING and `step` has enqueued it: work
              that must be done before the sites can open the sum
    sum_of    outside any transaction, in the hub's worker: the one blob (a weights file: the weighted mean update)
              that the round's close counts. A function of what is stored: after a crash it gives the same blob

A method adds itself to `METHODS` in `opening_methods.py`.
"""

from collections.abc import Sequence
from typing import Protocol

from hub.aggregation.strategy import CountedUpdate
from hub.rounds.asking import Turn
from hub.rounds.closing import Verdict
from hub.services import Services
from hub.storage.round_stores import TaskStanding
from hub.storage.tables import RoundRow, TaskRow


class OpeningMethod(Protocol):
    """A method of secure aggregation, as the coordinator of rounds sees it. Without state of its own."""

    def open(self, turn: Turn, row: RoundRow, asked: Sequence[str]) -> None:
        """Note that a training round has been opened and which sites were asked."""

    def verdict(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskStanding]) -> Verdict:
        """Say what is to be done with a round that is training or opening; `tasks` are its training tasks."""

    def why(self, turn: Turn, row: RoundRow) -> str:
        """Say in a sentence what was missing, after FAIL."""

    def step(self, turn: Turn, row: RoundRow, tasks: Sequence[TaskRow]) -> bool:
        """Go on after CLOSE; True once the round itself may move."""

    def begin(self, turn: Turn, row: RoundRow) -> None:
        """Start the opening of the sum of the round's accepted updates."""

    def end(self, turn: Turn, row: RoundRow) -> None:
        """Note that the round has failed or was abandoned."""

    def prepare(self, services: Services, study: str, number: int) -> bool:
        """Do what needs the hub's worker while the round is opening; tell whether there was anything to do.

        Raises: AggregationError or ProtocolError if it cannot be done; the round then fails.
        """

    def sum_of(self, services: Services, study: str, number: int) -> CountedUpdate:
        """Open the sum, store the mean as one blob and return it with the weight 1.

        Raises: AggregationError or ProtocolError if it cannot be opened; the round then fails.
        """
