"""The end of a job: its payload is digested and handed over to the gate as a candidate.

The gate copies a payload at once, and syncs its own copy before anything is answered. So the worker's file is not
synced where the gate can tell that the power failed in between: the order names the run of the gate's machine, and it
is this one's. The gate then has the order done again, which gives the same bytes (`governance/answers.py`).
"""

from site_node.candidate import Candidate, NoisedUse, write_update_candidate
from site_node.durable import boot_id
from site_node.orders import WorkOrder
from site_node.settings import SitePaths
from site_node.update.steps import Payload


def hand_over_payload(
    paths: SitePaths, order: WorkOrder, payload: Payload, uncut: float | None = None, used: NoisedUse | None = None
) -> None:
    """Hand over what an order's task made of a model."""
    unsynced_in = order.boot if order.boot == boot_id() else None

    def candidate_of(digest: str) -> Candidate:
        return Candidate(
            task_id=order.task_id,
            task_digest=order.task_digest,
            kind="update",
            payload_digest=digest,
            payload_bytes=len(payload.data),
            manifest_digest=payload.manifest_digest,
            steps=list(payload.steps),
            uncut=uncut,
            used=used,
            unsynced_in=unsynced_in,
        )

    write_update_candidate(paths, order.task_id, payload.data, candidate_of, synced=unsynced_in is None)
