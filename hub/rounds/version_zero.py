"""Version 0: what one site built from the study's seed, taken as it is, or the weights that the study names.

Any site can rebuild the first and check it; of the second it has approved the digest.
"""

from hub.aggregation.choosing import strategy_of
from hub.errors import NotFoundError
from hub.registry.coordinator import register_version
from hub.registry.lineage import LineageParticipant
from hub.rounds.asking import Turn
from hub.storage import round_stores
from hub.storage.tables import VersionRow
from protocol.digest import Digest
from protocol.tensors import read_manifest


def register_given_version_zero(turn: Turn, weights: Digest) -> VersionRow:
    """Register the weights that the specification names as version 0, with the version they are of as its parent.

    Raises: NotFoundError if they are no longer in the blob store.
    """
    if not turn.services.blobs.contains(weights):
        raise NotFoundError("The weights that the study starts from are gone.", "Restore the blob store from a backup.")
    return _register(turn, weights, parents=[weights], participants=[])


def register_version_zero(turn: Turn) -> VersionRow:
    """Register the accepted weights of round 0 as version 0, in the turn's transaction."""
    (update,) = round_stores.updates_of_round(turn.session, turn.study.digest, 0)
    task = round_stores.task(turn.session, update.task_id)
    participant = LineageParticipant(update.site, update.weight, update.blob, task.digest if task else "")
    row = _register(turn, update.blob, parents=[], participants=[participant])
    update.taken_in, update.counted_in = 0, 0
    return row


def _register(turn: Turn, weights: str, parents: list[str], participants: list[LineageParticipant]) -> VersionRow:
    blobs = turn.services.blobs
    return register_version(
        turn.session,
        turn.services,
        study=turn.study,
        round=0,
        weights_digest=weights,
        weights_bytes=blobs.size(weights),
        manifest_digest=read_manifest(blobs.path(weights)).digest,
        parents=parents,
        participants=participants,
        epsilon=None,
        delta=None,
        server_state=strategy_of(turn.spec).init(weights).document(),
    )
