"""Version 0: what one site built from the study's seed, taken as it is. Any site can rebuild it and check it."""

from hub.aggregation.choosing import strategy_of
from hub.registry.coordinator import register_version
from hub.registry.lineage import LineageParticipant
from hub.rounds.asking import Turn
from hub.storage import round_stores
from hub.storage.tables import VersionRow
from protocol.tensors import read_manifest


def register_version_zero(turn: Turn) -> VersionRow:
    """Register the accepted weights of round 0 as version 0, in the turn's transaction."""
    (update,) = round_stores.updates_of_round(turn.session, turn.study.digest, 0)
    task = round_stores.task(turn.session, update.task_id)
    participant = LineageParticipant(update.site, update.weight, update.blob, task.digest if task else "")
    blobs = turn.services.blobs
    row = register_version(
        turn.session,
        turn.services,
        study=turn.study,
        round=0,
        weights_digest=update.blob,
        weights_bytes=blobs.size(update.blob),
        manifest_digest=read_manifest(blobs.path(update.blob)).digest,
        parents=[],
        participants=[participant],
        epsilon=None,
        delta=None,
        server_state=strategy_of(turn.spec).init(update.blob).document(),
    )
    update.counted_in = 0
    return row
