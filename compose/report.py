"""`report.json`: what a study did, round by round, gathered from the hub's API and the hospitals' own accounts.

Numbers of images and training seconds never leave a hospital; whoever runs all hospitals on one machine may read them
from the sites' folders, and so they stand in this report.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

REPORT_SCHEMA = "wardround.report/1"


@dataclass(frozen=True)
class ProcessEntry:
    """A process that took part."""

    role: str
    pid: int
    command: str


def build_report(
    hub: httpx.Client,
    study_digest: str,
    site_folders: Mapping[str, Path],
    *,
    noise: Literal["cryptographic", "seeded"],
    processes: Sequence[ProcessEntry] = (),
) -> dict[str, Any]:
    """Return the report of a study. `hub` is a client of the hub's API with a person's token."""
    study = _get(hub, f"/v1/studies/{study_digest}")
    rounds = [r for r in _get(hub, f"/v1/studies/{study_digest}/rounds") if r["number"] > 0]
    versions = _get(hub, f"/v1/studies/{study_digest}/versions")
    privacy = study["privacy"]
    return {
        "schema": REPORT_SCHEMA,
        "study": {
            **{key: study[key] for key in ("digest", "name", "title", "state", "reason", "final_version")},
            "specification": study["study"],
        },
        "privacy": {
            "unit": privacy["unit"],
            "epsilon": _largest_epsilon(rounds),
            "delta": privacy["delta"] if privacy["epsilon_target"] is not None else None,
            "epsilon_target": privacy["epsilon_target"],
            "noise": noise,
        },
        "rounds": [_round(entry, study["name"], site_folders) for entry in rounds],
        "versions": [{"number": v["number"], "digest": v["digest"], "parents": v["parents"]} for v in versions],
        "final": _final(study, rounds),
        "hub_key": _get(hub, "/v1/info")["hub_key"],
        "processes": [{"role": p.role, "pid": p.pid, "command": p.command} for p in processes],
    }


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(report, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _round(entry: Mapping[str, Any], study: str, site_folders: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "number": entry["number"],
        "version": entry["version"],
        "state": entry["state"],
        "reason": entry["reason"],
        "seconds": entry["seconds"],
        "metrics": entry["metrics"],
        "warnings": entry["warnings"],
        "sites": [_site(site, study, entry["number"], site_folders) for site in entry["sites"]],
    }


def _site(site: Mapping[str, Any], study: str, number: int, folders: Mapping[str, Path]) -> dict[str, Any]:
    own = _own_account(folders.get(site["site"]), f"{study}.r{number}.{site['site']}.train")
    return {
        "site": site["site"],
        "patients": site["patients"],
        "images": own.get("images"),
        "epsilon": site["epsilon"],
        "bytes_up": site["bytes_up"],
        "bytes_down": site["bytes_down"],
        "train_seconds": own.get("seconds", site["train_seconds"]),
        "train_state": site["train_state"],
        "reason": site["reason"],
        "rate_factor": site["rate_factor"],
        "rate_parts": site["rate_parts"],
        "receipt": site["receipt"],
        "metrics": site["metrics"],
    }


def _own_account(folder: Path | None, task_id: str) -> dict[str, Any]:
    path = folder / "worker" / "receipts" / f"{task_id}.json" if folder else None
    if path is None or not path.exists():
        return {}
    account: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return account


def _largest_epsilon(rounds: Sequence[Mapping[str, Any]]) -> float | None:
    spent = [site["epsilon"] for entry in rounds for site in entry["sites"] if site["epsilon"] is not None]
    return max(spent, default=None)


def _final(study: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    for entry in rounds:
        if entry["version"] is not None and entry["version"] == study["final_version"]:
            return {"version": entry["version"], "metrics": entry["metrics"]}
    return None


def _get(hub: httpx.Client, path: str) -> Any:
    response = hub.get(path)
    response.raise_for_status()
    return response.json()
