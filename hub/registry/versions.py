"""A model version as the API shows it."""

from collections.abc import Sequence
from typing import Any

from hub.registry.lineage import read_lineage
from hub.storage.tables import DecisionRow, VersionRow

DECISIONS = ("accepted", "rejected")
MAX_COMMENT_CHARACTERS = 2000


def version_view(row: VersionRow, decisions: Sequence[DecisionRow], metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Return a VersionView."""
    lineage = read_lineage(row.lineage)
    shown = ("site", "weight", "update_digest", "used")
    privacy = lineage["privacy"] or {"epsilon": None, "delta": None}
    numbers = (lineage["server_state"] or {}).get("numbers", {})
    return {
        "number": row.number,
        "digest": row.weights_digest,
        "weights_bytes": row.weights_bytes,
        "manifest_digest": row.manifest_digest,
        "parents": lineage["parents"],
        "round": lineage["round"],
        "created_at": row.created_at,
        "participants": [
            {key: participant[key] for key in shown if key in participant} | _share(numbers, participant["site"])
            for participant in lineage["participants"]
        ],
        "server_step": numbers.get("server_step"),
        "privacy": {"epsilon": privacy["epsilon"], "delta": privacy["delta"]},
        "metrics": metrics,
        "decisions": [
            {"person": d.person, "decision": d.decision, "comment": d.comment, "decided_at": d.decided_at}
            for d in decisions
        ],
        "lineage_envelope": row.lineage.decode(),
    }


def _share(numbers: dict[str, float], site: str) -> dict[str, float]:
    """Return what a site's update counted, where the hub gave it another weight than it came with."""
    share = numbers.get(f"share.{site}")
    return {} if share is None else {"share": share}
