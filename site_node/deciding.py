"""What a person's decision on a study must pass, at the terminal and through the site's API alike.

An approval is of what was read: it names the digest of that, which is compared in the transaction that records it. The
gate may count anew while somebody reads, and only sets aside what was decided before.
"""

import sqlite3
from pathlib import Path

from protocol.digest import digest_of_bytes
from protocol.signing import SigningKey
from site_node.errors import SettingsError
from site_node.governance.approval import SECONDS_A_DAY, Decision, DecisionWord, record_decision
from site_node.governance.policy import load_policy
from site_node.governance.records import StudyRecord, study_record
from site_node.settings import SiteSettings
from site_node.sqlite import transaction
from site_node.study_summary import Sections, lines_of, summary_of


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


def shown_digest(summary: Sections, detail: str) -> str:
    """Return the digest of what a person is shown of a study: its summary, and what the gate minds about it. Pure."""
    return digest_of_bytes("\n".join([*lines_of(summary), detail]).encode())


def decide_on(
    settings: SiteSettings,
    database: sqlite3.Connection,
    study: str,
    word: DecisionWord,
    person: str,
    account: str,
    now: float,
    *,
    days: int | None = None,
    shown: str | None = None,
) -> None:
    """Record a decision; an approval ends after so many days, by default the policy's.

    Guarantee: an approval is recorded only while the study is as it was `shown`; nothing is changed in between.
    Raises: SettingsError.
    """
    policy, key = load_policy(settings.policy), SigningKey.load_or_create(settings.paths.identity_key)
    expires_at = now + (days or policy.approval_days) * SECONDS_A_DAY if word == "approved" else None
    with transaction(database):
        if word == "approved":
            record = check_may_approve(study_record(database, study), settings.paths.root)
            if shown != shown_digest(summary_of(database, record, policy), record.detail):
                raise SettingsError("This is not what was read: the study's page has changed.", "Read it again.")
        record_decision(database, Decision(study, word, person, now, expires_at, account), key)
