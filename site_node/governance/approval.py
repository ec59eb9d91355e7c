"""A person's decision over one study's digest: approved, refused or withdrawn, with its expiry.

Decisions are appended and never changed; the last one counts. Each is a statement signed with the site's identity key.
A changed study has another digest and needs a decision of its own. Withdrawal takes effect at once.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from protocol.digest import canonical_json
from protocol.signing import SigningKey, sign

DecisionWord = Literal["approved", "refused", "withdrawn"]
Standing = Literal["approved", "refused", "withdrawn", "expired", "undecided"]
POLICY_PERSON = "policy"
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Decision:
    """What somebody decided; `person` is "policy" where the policy approves automatically."""

    study_digest: str
    decision: DecisionWord
    person: str
    decided_at: float
    expires_at: float | None

    def statement(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical_json(
            {
                "schema": "wardround.site-decision/1",
                "study_digest": self.study_digest,
                "decision": self.decision,
                "person": self.person,
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


def rfc3339(seconds: float) -> str:
    """Return UTC seconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
