"""The end of a job: its payload is digested and handed over to the gate as a candidate."""

from site_node.candidate import Candidate, write_update_candidate
from site_node.orders import WorkOrder
from site_node.settings import SitePaths
from site_node.update.steps import Payload


def hand_over_payload(paths: SitePaths, order: WorkOrder, payload: Payload, uncut: float | None = None) -> None:
    """Hand over what an order's task made of a model."""

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
        )

    write_update_candidate(paths, order.task_id, payload.data, candidate_of)
