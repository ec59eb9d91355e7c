"""A person's decision over one study's digest: approved, refused or withdrawn, with its expiry.

Decisions are appended and never changed; the last one counts. Each is a statement signed with the site's identity key:
it proves that somebody who may use that key decided so at this site, and no more. `person` is what they typed, and
`account` is the operating system's account that the command ran under; who of a shared account it was, nothing tells.
A changed study has another digest and needs a decision of its own. Withdrawal takes effect at once.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from protocol.digest import canonical_json, parse_json
from protocol.signing import SigningKey, read_unverified, sign

SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions_set_aside (study TEXT PRIMARY KEY, decisions INTEGER NOT NULL);
"""
DecisionWord = Literal["approved", "refused", "withdrawn"]
Standing = Literal["approved", "refused", "withdrawn", "expired", "undecided"]
POLICY_PERSON = "policy"
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Decision:
    """What somebody decided; `person` is "policy" where the policy approves automatically, and `account` is None."""

    study_digest: str
    decision: DecisionWord
    person: str
    decided_at: float
    expires_at: float | None
    account: str | None = None

    def statement(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical_json(
            {
                "schema": "wardround.site-decision/1",
                "study_digest": self.study_digest,
                "decision": self.decision,
                "person": self.person,
                "account": self.account,
                "decided_at": rfc3339(self.decided_at),
                "expires_at": None if self.expires_at is None else rfc3339(self.expires_at),
            }
        )


def standing_of(decisions: Sequence[Decision], now: float) -> Standing:
    """Return how a study stands by its decisions, oldest first. Pure."""
    if not decisions:
        return "undecided"
    last = decisions[-1]
    if last.decision == "approved" and last.expires_at is not None and now >= last.expires_at:
        return "expired"
    return last.decision


def record_decision(database: sqlite3.Connection, decision: Decision, key: SigningKey) -> None:
    """Append a signed decision."""
    database.execute(
        "INSERT INTO decisions (study, decision, person, decided_at, expires_at, statement) VALUES (?, ?, ?, ?, ?, ?)",
        (
            decision.study_digest,
            decision.decision,
            decision.person,
            decision.decided_at,
            decision.expires_at,
            sign(decision.statement(), key),
        ),
    )


def decisions_on(database: sqlite3.Connection, study_digest: str) -> list[Decision]:
    """Return the decisions over a study, oldest first."""
    rows = database.execute(
        "SELECT study, decision, person, decided_at, expires_at FROM decisions WHERE study = ? ORDER BY number",
        (study_digest,),
    )
    return [Decision(*row) for row in rows]


def set_decisions_aside(database: sqlite3.Connection, study_digest: str) -> None:
    """Let what was decided so far not approve a study whose figures are others now. Call within a transaction."""
    number = len(decisions_on(database, study_digest))
    database.execute("INSERT OR REPLACE INTO decisions_set_aside VALUES (?, ?)", (study_digest, number))


def decisions_since_counted(database: sqlite3.Connection, study_digest: str) -> list[Decision]:
    """Return the decisions over a study's figures as they were counted last, oldest first."""
    row = database.execute("SELECT decisions FROM decisions_set_aside WHERE study = ?", (study_digest,)).fetchone()
    return decisions_on(database, study_digest)[0 if row is None else row[0] :]


def account_of_last(database: sqlite3.Connection, study_digest: str) -> str | None:
    """Return the account that the last decision over a study was made under, as its signed statement says."""
    row = database.execute(
        "SELECT statement FROM decisions WHERE study = ? ORDER BY number DESC LIMIT 1", (study_digest,)
    ).fetchone()
    if row is None:
        return None
    account = parse_json(read_unverified(bytes(row["statement"]))).get("account")
    return None if account is None else str(account)


def rfc3339(seconds: float) -> str:
    """Return UTC seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
