"""What makes the next version from updates: an interface, and the state that goes in and comes out.

A strategy keeps nothing on itself. What it must remember is a `ServerState`: names of blobs and numbers, stored in the
signed lineage of the version that it belongs to, so that any process can take the next step from the database alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hub.registry.blobs import BlobStore

STATE_SCHEMA = "wardround.server-state/2"
MEAN = "mean"
"""The blob of the mean of the weights, where the study asks for one: it is what is released."""
CONTROL = "control"
"""The blob of SCAFFOLD's control variate, which goes out with the tasks; not there: it is zero."""
SENT = "sent"
"""The blob of the weights as sites hold them, where versions travel as coded differences (`differences.py`)."""
DIFFERENCE, DIFFERENCE_BASE = "difference", "difference_base"
"""The file of the difference that leads there, and the blob of the version that it is added to."""
UPDATE_NORM = "update_norm"
"""The length to which sites cut their next updates, where they do."""

SHARE = "share."
"""Before a site's name: what its update counted, where that is not the weight it came with."""


@dataclass(frozen=True)
class ServerState:
    """A strategy's state after a version.

    `step` is the number of rounds applied; `weights` the blob that the next step starts from; `blobs` are further
    arrays of the model's form (momentum, second moment, control variate, mean) by name, and how the weights are sent;
    `numbers` are figures of the last step.
    """

    step: int
    weights: str
    blobs: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def released(self) -> str:
        """Return the blob that is released as the version: the mean if there is one."""
        return self.blobs.get(MEAN, self.sent)

    @property
    def sent(self) -> str:
        """Return the blob that sites train from: the weights, or what they have of them."""
        return self.blobs.get(SENT, self.weights)

    @property
    def mean(self) -> str | None:
        """Return the blob of the weights' mean, if there is one."""
        return self.blobs.get(MEAN)

    @property
    def control(self) -> str | None:
        """Return the blob of the control variate; None before the first round, when it is zero."""
        return self.blobs.get(CONTROL)

    @property
    def update_norm(self) -> float | None:
        """Return the length of the next updates, where sites cut them."""
        return self.numbers.get(UPDATE_NORM)

    def with_numbers(self, **numbers: float) -> "ServerState":
        """Return the state with these numbers set."""
        return replace(self, numbers={**self.numbers, **numbers})

    def document(self) -> dict[str, Any]:
        """Return what is stored with the version."""
        return {
            "schema": STATE_SCHEMA,
            "step": self.step,
            "weights": self.weights,
            "blobs": dict(self.blobs),
            "numbers": dict(self.numbers),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ServerState":
        """Read what `document` wrote, also in its first form, which named mean and length at the top."""
        blobs = {str(name): str(digest) for name, digest in document.get("blobs", {}).items()}
        numbers = {str(name): float(value) for name, value in document.get("numbers", {}).items()}
        if document.get(MEAN) is not None:
            blobs[MEAN] = str(document[MEAN])
        if document.get(UPDATE_NORM) is not None:
            numbers[UPDATE_NORM] = float(document[UPDATE_NORM])
        return cls(int(document["step"]), str(document["weights"]), blobs, numbers)


@dataclass(frozen=True)
class CountedUpdate:
    """An accepted update as it is joined: its blob (the difference, opened), its weight, and its noised bit.

    `factor` scales the update itself and not its weight: what is late or of poor quality then moves the model less,
    and the others no more. `sites` is how many sites' updates the blob is the mean of: several under masks. `round` is
    the round in which it was asked, whose learning rate it was trained with; None: the round that closes.
    """

    site: str
    blob: str
    weight: float
    uncut: float | None = None
    factor: float = 1.0
    sites: int = 1
    round: int | None = None


@dataclass(frozen=True)
class RoundFacts:
    """What a strategy may know of a round beside its updates; fixed once the round closes.

    `trainers` is how many sites of the study have patients to train on, whether they were asked in this round or not.
    """

    number: int
    trainers: int
    noise_multiplier: float | None = None


class Strategy(Protocol):
    """How versions follow one another."""

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0, whose blob is given."""

    def apply(
        self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore, facts: RoundFacts | None = None
    ) -> ServerState:
        """Store the next version's blobs and return the next state.

        Without facts the round is the next one, without noise, and all its sites have answered.
        Guarantee: a function of state, updates (in their order) and facts alone; called again, it stores the same
            blobs.
        Raises: AggregationError if no usable version follows.
        """
