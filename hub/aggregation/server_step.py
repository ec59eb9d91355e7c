"""How the joined update moves the weights: an interface.

A step's memory between rounds (momentum, second moment, control variate) are arrays of the model's form. They go in and
come out by name, window by window, and stand in `ServerState.blobs`; one that is not there yet has the same value
everywhere, which `arrays` states, so that no file of zeros is ever stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hub.aggregation.gathering import Gathered, Values
from hub.aggregation.joining import Joined

Arrays = Mapping[str, Values]


@dataclass(frozen=True)
class Move:
    """One round's step: (weights, joined update, arrays) to (new weights, new arrays), on any window of values.

    `numbers` are figures of the step that stand in the lineage.
    """

    take: Callable[[Values, Values, Arrays], tuple[Values, Arrays]]
    numbers: Mapping[str, float] = field(default_factory=dict)


class ServerStep(Protocol):
    """A rule that moves the weights along the joined update."""

    @property
    def arrays(self) -> Mapping[str, float]:
        """Return the names of the arrays that are kept, each with the value it starts from."""

    def prepare(self, gathered: Gathered, joined: Joined) -> Move:
        """Return this round's step; it may read the updates' files.

        Raises: AggregationError if the round allows no such step.
        """
