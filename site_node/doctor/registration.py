"""What the gate knows: enrolled, the ledger whole, and the approvals that end soon. And whether the gate runs."""

import fcntl
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.governance import high_water
from site_node.governance.approval import decisions_on, standing_of
from site_node.governance.ledger_heads import is_behind
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records, study_records
from site_node.settings import SiteSettings

DAY_SECONDS = 86400.0
NOTICE_DAYS = 14
ENROL = "Run `wardround site enroll DIR --code CODE` with the code of the hub's operator."
RECONCILE = "See what is missing and make up for it: `wardround site reconcile DIR`."


@dataclass(frozen=True)
class Approval:
    """A study's standing here; `ends_at` in seconds since 1970, None where it does not end."""

    digest: str
    standing: str
    ends_at: float | None


def examine(settings: SiteSettings) -> list[Finding]:
    """Look at the gate's records; nothing is changed."""
    load_policy(settings.policy)
    findings = [fine("policy", "policy.yaml can be read."), verdict_on_enrolment(settings.paths.hub_key.exists())]
    findings.append(verdict_on_gate(is_running(settings.paths.gate / "lock")))
    if settings.paths.gate_database.exists():
        with closing(open_records(settings.paths)) as database:
            behind = is_behind(database), high_water.is_behind(settings.paths, database)
            findings += [verdict_on_ledger(*behind), verdict_on_approvals(_approvals(database), time.time())]
    return findings


def verdict_on_enrolment(is_enrolled: bool) -> Finding:
    """Say whether the gate knows its hub. Pure."""
    if not is_enrolled:
        return problem("enrolment", "This site is not enrolled with a hub.", ENROL)
    return fine("enrolment", "The gate holds the key of the hub that this site enrolled with.")


def verdict_on_gate(is_there: bool) -> Finding:
    """Say whether a gate is running. Pure."""
    if not is_there:
        return problem("gate", "No gate is running: nothing is decided and nothing leaves.", "wardround site gate DIR")
    return fine("gate", "The gate is running.")


def verdict_on_ledger(lacks_charges: bool, lacks_answers: bool) -> Finding:
    """Say whether the records are an old copy of themselves. Pure."""
    if lacks_charges:
        return problem("ledger", "The privacy ledger lacks charges that the hub has countersigned.", RECONCILE)
    if lacks_answers:
        return problem("ledger", "The gate's records are older than what has left; nothing is answered.", RECONCILE)
    return fine("ledger", "The ledger holds all that the hub has named, and all that left.")


def verdict_on_approvals(approvals: Iterable[Approval], now: float) -> Finding:
    """Say which approvals have ended or end within two weeks. Pure."""
    known = list(approvals)
    ended = [a for a in known if a.standing == "expired"]
    ends = [a for a in known if a.standing == "approved" and a.ends_at is not None]
    soon = sorted((a for a in ends if (a.ends_at or 0) - now < NOTICE_DAYS * DAY_SECONDS), key=lambda a: a.ends_at or 0)
    if ended or soon:
        says = [f"expired: {a.digest[:19]}" for a in ended]
        says += [f"{a.digest[:19]} ends in {((a.ends_at or 0) - now) / DAY_SECONDS:.1f} days" for a in soon]
        remedy = "Approve again what is to go on: `wardround site approve DIR DIGEST`."
        return warning("approvals", f"{'; '.join(says).capitalize()}.", remedy)
    approved = sum(1 for a in known if a.standing == "approved")
    return fine("approvals", f"{approved} studies are approved, none of which ends within {NOTICE_DAYS} days.")


def is_running(lock: Path) -> bool:
    """Tell whether a process holds its lock."""
    with suppress(FileNotFoundError), lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _approvals(database: sqlite3.Connection) -> list[Approval]:
    now, found = time.time(), []
    for record in study_records(database, "approved"):
        decisions = decisions_on(database, record.digest)
        ends_at = decisions[-1].expires_at if decisions else None
        found.append(Approval(record.digest, standing_of(decisions, now), ends_at))
    return found
