"""What makes the next version from updates: an interface, and the state that goes in and comes out.

A strategy keeps nothing on itself. What it must remember is a `ServerState`: digests of blobs, stored in the lineage
of the version that it belongs to, so that any process can take the next step from the database alone.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from hub.registry.blobs import BlobStore

STATE_SCHEMA = "wardround.server-state/1"


@dataclass(frozen=True)
class ServerState:
    """A strategy's state after a version.

    `step` is the number of rounds applied; `weights` the blob that sites train from; `mean` the exponential mean of the
    weights, where the study asks for one; `update_norm` the length to which sites cut their
    next updates, where they do.
    """

    step: int
    weights: str
    mean: str | None = None
    update_norm: float | None = None

    @property
    def released(self) -> str:
        """Return the blob that is released as the version: the mean if there is one."""
        return self.mean or self.weights

    def document(self) -> dict[str, Any]:
        """Return what is stored with the version."""
        return {"schema": STATE_SCHEMA, **asdict(self)}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ServerState":
        """Read what `document` wrote."""
        return cls(
            step=int(document["step"]),
            weights=str(document["weights"]),
            mean=document.get("mean"),
            update_norm=document.get("update_norm"),
        )


@dataclass(frozen=True)
class CountedUpdate:
    """An accepted update as the mean takes it: its blob (the difference, opened), its weight, and its noised bit."""

    site: str
    blob: str
    weight: float
    uncut: float | None = None


class Strategy(Protocol):
    """How versions follow one another."""

    def init(self, weights: str) -> ServerState:
        """Return the state of version 0, whose blob is given."""

    def apply(self, state: ServerState, updates: Sequence[CountedUpdate], blobs: BlobStore) -> ServerState:
        """Store the next version's blobs and return the next state.

        Guarantee: a function of state and updates (in their order) alone; called again, it stores the same blobs.
        Raises: AggregationError if no usable version follows.
        """
