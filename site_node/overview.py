"""What the site's own people see of their node: plain data for the command line and the site's own pages."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from protocol.errors import ProtocolError
from protocol.secure_aggregation.histograms import sums_histograms
from site_node.durable import finished_files
from site_node.governance import hash_chain, high_water
from site_node.governance.approval import account_of_last, decisions_on, rfc3339, standing_of
from site_node.governance.holding import is_draining
from site_node.governance.ledger_heads import is_behind
from site_node.governance.policy import Policy, objections_to
from site_node.governance.progress import read_progress
from site_node.governance.reasons import sentence_of
from site_node.governance.records import StudyRecord, is_paused, study_records, task_records
from site_node.settings import SiteSettings


def status_of(settings: SiteSettings, database: sqlite3.Connection) -> dict[str, Any]:
    """Return where the site stands."""
    paths = settings.paths
    row = database.execute("SELECT received_at FROM receipts ORDER BY number DESC LIMIT 1").fetchone()
    tasks = task_records(database, "waiting", "accepted")
    return {
        "site": settings.name,
        "hub": settings.hub_url,
        "enrolled": paths.hub_key.exists(),
        "paused": is_paused(database),
        "draining": is_draining(database),
        "train_hours": _hours_of(settings, time.time()),
        "ledger_behind": is_behind(database),
        "behind_mark": high_water.is_behind(paths, database),
        "indexed": _is_there(paths.index),
        "studies": {record.digest: record.state for record in study_records(database)},
        "tasks": [{"task_id": t.task_id, "state": t.state, **_progress_of(settings, t.task_id)} for t in tasks],
        "orders": [path.stem for path in finished_files(paths.orders, ".json")],
        "outbox": database.execute("SELECT COUNT(*) FROM unsent").fetchone()[0],
        "egress_entries": hash_chain.head(database, "egress")[0],
        "last_receipt_at": None if row is None else row["received_at"],
    }


def studies_of(database: sqlite3.Connection, policy: Policy, now: float) -> list[dict[str, Any]]:
    """Return every study that was proposed here, with what stands in its way."""
    return [_study(database, record, policy, now) for record in study_records(database)]


def _progress_of(settings: SiteSettings, task_id: str) -> dict[str, Any]:
    """Return what is done of a task by now, or nothing if it has not begun; one that was cut off keeps what it had."""
    found = read_progress(settings.paths, task_id)
    return {} if found is None else {"activity": found[0].value, "fraction": found[1]}


def _hours_of(settings: SiteSettings, now: float) -> dict[str, Any] | None:
    """Return the hours in which trainings begin here, whether they are now, and when they come next."""
    hours = settings.train_hours
    if hours is None:
        return None
    opens_at = rfc3339(hours.opens_at(now))
    return {**hours.model_dump(mode="json"), "open": hours.is_open(now), "opens_at": opens_at}


def _is_there(path: Path) -> bool | None:
    try:
        return path.exists()
    except PermissionError:
        return None  # in the folder of another of the site's users


def _study(database: sqlite3.Connection, record: StudyRecord, policy: Policy, now: float) -> dict[str, Any]:
    try:
        study = record.study
    except ProtocolError:  # refused at once, because it does not parse: only its digest and the fault are known
        return {"digest": record.digest, "state": record.state, "reason": record.reason, "explanation": record.detail}
    decisions = decisions_on(database, record.digest)
    objections = objections_to(policy, study, record.noise_multiplier)
    last = decisions[-1] if decisions else None
    return {
        "digest": record.digest,
        "name": study.name,
        "title": study.title,
        "state": record.state,
        "reason": record.reason,
        "explanation": record.detail or (sentence_of(record.reason) if record.reason else ""),
        "policy_objection": " ".join(objection.sentence for objection in objections) or None,
        "standing": standing_of(decisions, now),
        "decided_by": None if last is None else last.person,
        "decided_under_account": account_of_last(database, record.digest),
        "expires_at": None if last is None or last.expires_at is None else rfc3339(last.expires_at),
        "epsilon": study.privacy.epsilon,
        "delta": study.privacy.delta,
        "mechanism": study.privacy.mechanism,
        "unit": study.privacy.unit,
        "honest_fraction": study.privacy.honest_fraction if study.privacy.mechanism == "shared-noise" else None,
        "secure_aggregation": study.secure_aggregation.method,
        "held_out_noise_epsilon": study.evaluation.noise_epsilon,
        "held_out_counts_summed": sums_histograms(study),
        "cohort": study.cohort.model_dump(mode="json"),
        "label": study.label.model_dump(mode="json"),
        "start": study.start.model_dump(mode="json"),
        "personal": study.personal.model_dump(mode="json"),
        "rounds": study.rounds,
        "network": study.network.name,
        "training_patients": record.training_patients,
        "count_epsilon": study.privacy.count_epsilon,
        "held_out_patients": record.held_out_patients,
    }
