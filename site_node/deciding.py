"""What a person's decision on a study must pass, at the terminal and through the site's API alike."""

import sqlite3
from pathlib import Path

from protocol.digest import digest_of_bytes
from protocol.signing import SigningKey
from site_node.errors import SettingsError
from site_node.governance.approval import SECONDS_A_DAY, Decision, DecisionWord, record_decision
from site_node.governance.policy import Policy
from site_node.governance.records import StudyRecord
from site_node.study_summary import lines_of, summary_of


def check_may_approve(record: StudyRecord | None, root: Path) -> StudyRecord:
    """Refuse an approval before the figures that leave are known, or where patients do not fit.

    Raises: SettingsError.
    """
    if record is None or record.state == "counting":
        raise SettingsError(
            "This hospital's patients are still being counted for this study; nobody has seen the figures yet.",
            'Wait until `wardround site studies DIR --json` says "state": "awaiting"; the worker must run.',
        )
    if record.state == "awaiting" and record.reason is not None:
        raise SettingsError(
            f"This hospital's patients do not fit the study, so it cannot be approved. {record.detail}",
            f"wardround site approve {root} {record.digest[:19]} --refuse",
        )
    return record


def shown_digest(database: sqlite3.Connection, record: StudyRecord, policy: Policy) -> str:
    """Return the digest of what a person is shown of a study: its summary, and what the gate minds about it."""
    return digest_of_bytes("\n".join([*lines_of(summary_of(database, record, policy)), record.detail]).encode())


def decide_on(
    database: sqlite3.Connection,
    study: str,
    word: DecisionWord,
    person: str,
    account: str,
    now: float,
    days: int | None,
    policy: Policy,
    key: SigningKey,
) -> None:
    """Record a decision; an approval ends after so many days, by default the policy's."""
    expires_at = now + (days or policy.approval_days) * SECONDS_A_DAY if word == "approved" else None
    record_decision(database, Decision(study, word, person, now, expires_at, account), key)
