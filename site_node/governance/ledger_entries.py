"""What stands in the privacy ledger: charges, budgets, gaps. Each kind parses by its schema; an unknown one stops all.

A charge holds a random nonce and no clock time: the same study charged again, on a restored backup, is another head,
which the hub's copy does not go on from. Heads of the ledger go into tasks, whose digests key the noise: a simulation
draws its nonces from its seed. When a charge was made stands in the egress ledger, beside the message that tells it.
"""

import sqlite3
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import Digest
from protocol.messages import LedgerHead
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import LifetimeBudget
from site_node.errors import GateError
from site_node.governance import hash_chain

Group = Literal["training", "held-out"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    number: int = 0

    def fields(self) -> dict[str, Any]:
        """Return what is stored, without the number that appending gives."""
        return self.model_dump(mode="json", by_alias=True, exclude={"number"})


class LedgerEntry(_Entry):
    """One event of a study, with the patients it touches. `event` null: touched without differential privacy.

    `cohort_digest` commits to the group's pseudonyms, which the gate keeps beside the ledger. `nonce` is never sent.
    """

    schema_: Literal["wardround.ledger-entry/1"] = Field(default="wardround.ledger-entry/1", alias="schema")
    study_digest: Digest
    cohort_digest: Digest
    patients: Group
    delta: float
    event: PrivacyEvent | None
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


class BudgetEntry(_Entry):
    """The lifetime budget from here on, as the policy presets it."""

    schema_: Literal["wardround.ledger-budget/1"] = Field(default="wardround.ledger-budget/1", alias="schema")
    budget: LifetimeBudget


class GapEntry(_Entry):
    """A charge that the hub has countersigned and this ledger had lost: charged to every patient of the site."""

    schema_: Literal["wardround.ledger-gap/1"] = Field(default="wardround.ledger-gap/1", alias="schema")
    study_digest: Digest
    head: LedgerHead
    delta: float
    charged: dict[Group, list[PrivacyEvent]]
    unprotected: bool


class RestatedEntry(_Entry):
    """After a gap: a study's charge that the hub had refused is told again, under the ledger's new head."""

    schema_: Literal["wardround.ledger-restated/1"] = Field(default="wardround.ledger-restated/1", alias="schema")
    study_digest: Digest


class DismissedEntry(_Entry):
    """The administrator set a head aside that the hub had named without any charge that this site signed."""

    schema_: Literal["wardround.ledger-dismissed/1"] = Field(default="wardround.ledger-dismissed/1", alias="schema")
    head: LedgerHead


Entry = LedgerEntry | BudgetEntry | GapEntry | RestatedEntry | DismissedEntry
_KINDS: dict[str, type[Entry]] = {
    str(kind.model_fields["schema_"].default): kind
    for kind in (LedgerEntry, BudgetEntry, GapEntry, RestatedEntry, DismissedEntry)
}


def all_entries(database: sqlite3.Connection) -> list[Entry]:
    """Return all entries, oldest first.

    Raises: GateError if one is of an unknown kind; nothing may be charged on top of what is not understood.
    """
    try:
        return [_KINDS[entry["schema"]].model_validate(entry) for entry in hash_chain.entries(database, "ledger")]
    except (KeyError, ValidationError):
        raise GateError(
            "The privacy ledger holds an entry of an unknown kind.", "Was it written by a newer version? Upgrade."
        ) from None


def ledger_entries(database: sqlite3.Connection) -> list[LedgerEntry]:
    """Return the charges of studies, oldest first.

    Raises: GateError if any entry is of an unknown kind.
    """
    return [entry for entry in all_entries(database) if isinstance(entry, LedgerEntry)]


def append_entry(database: sqlite3.Connection, entry: Entry) -> int:
    """Append an entry and return its number. Call within a transaction."""
    return hash_chain.append(database, "ledger", entry.fields())
