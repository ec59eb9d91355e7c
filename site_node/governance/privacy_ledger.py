"""The hospital's privacy ledger: every mechanism that any study may apply to its patients, appended before it can.

What is charged is the study's planned maximum, in the same transaction that records its approval; a study that ends
early, a refused task or a crash leave it charged: the ledger over-counts and never under-counts. It stores events, not
epsilons, and outlives studies.

Within a study epsilon is composed from the events (PLD). Across studies, which are chosen after seeing earlier ones,
the studies' epsilons and deltas are added: basic composition holds under adaptive choice with a preset budget.
Source: Rogers, Roth, Ullman, Vadhan 2016 (arXiv:1605.08294), Theorem 3.6: basic composition as a privacy filter.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.digest import digest_of
from protocol.messages import PrivacySpent, Reason
from protocol.privacy_accounting import PrivacyEvent, epsilon_of, training_event
from protocol.study import StudySpec
from site_node.errors import GateError
from site_node.governance import hash_chain
from site_node.governance.policy import Objection, Policy

ROUNDING = 1e-9


class LedgerEntry(BaseModel):
    """One event, with the cohort it touches. `event` null says: trained without differential privacy."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["wardround.ledger-entry/1"] = Field(default="wardround.ledger-entry/1", alias="schema")
    number: int = 0
    time: float
    study_digest: str
    cohort_digest: str
    patients: Literal["training", "held-out"]
    delta: float
    event: PrivacyEvent | None

    def fields(self) -> dict[str, Any]:
        """Return what is stored, without the number that appending gives."""
        return self.model_dump(mode="json", by_alias=True, exclude={"number"})


@dataclass(frozen=True)
class StudyCharge:
    """What one study was charged: an upper bound for each of its patients. None: no differential privacy."""

    study_digest: str
    epsilon: float | None
    delta: float


@dataclass(frozen=True)
class Budget:
    """The hospital's account over its lifetime."""

    charges: tuple[StudyCharge, ...]
    lifetime_epsilon: float
    lifetime_delta: float

    @property
    def epsilon(self) -> float:
        """Return the sum over the studies that had differential privacy."""
        return sum(charge.epsilon for charge in self.charges if charge.epsilon is not None)

    @property
    def delta(self) -> float:
        """Return the sum over the studies that had differential privacy."""
        return sum(charge.delta for charge in self.charges if charge.epsilon is not None)


def ledger_entries(database: sqlite3.Connection) -> list[LedgerEntry]:
    """Return all entries, oldest first.

    Raises: GateError if one is of an unknown kind; nothing may be charged on top of what is not understood.
    """
    try:
        return [LedgerEntry.model_validate(entry) for entry in hash_chain.entries(database, "ledger")]
    except ValidationError:
        raise GateError(
            "The privacy ledger holds an entry of an unknown kind.", "Was it written by a newer version? Upgrade."
        ) from None


def is_charged(database: sqlite3.Connection, study_digest: str) -> bool:
    """Tell whether a study's planned maximum stands in the ledger; never where there is nothing to charge."""
    return any(entry.study_digest == study_digest for entry in ledger_entries(database))


def charge(
    database: sqlite3.Connection,
    study: StudySpec,
    planned: list[tuple[str, PrivacyEvent | None]],
    cohort_digest: str,
    now: float,
) -> None:
    """Charge a study's planned maximum, once. Call within the transaction that records its approval."""
    digest = study.digest
    if is_charged(database, digest):
        return
    for patients, event in planned:
        entry = LedgerEntry.model_validate(
            {
                "time": now,
                "study_digest": digest,
                "cohort_digest": cohort_digest,
                "patients": patients,
                "delta": study.privacy.delta,
                "event": event,
            }
        )
        hash_chain.append(database, "ledger", entry.fields())


def budget_of(entries: list[LedgerEntry], policy: Policy) -> Budget:
    """Return what was charged so far and what there is. Pure but for the accountant's cache."""
    charges = tuple(_charge_of(digest, entries) for digest in dict.fromkeys(entry.study_digest for entry in entries))
    return Budget(charges, policy.lifetime_epsilon, policy.lifetime_delta)


def budget_objection(
    budget: Budget, study: StudySpec, planned: list[tuple[str, PrivacyEvent | None]]
) -> Objection | None:
    """Say why a study does not fit into what is left, and what would fit; None if it fits or was charged already."""
    if any(charge.study_digest == study.digest for charge in budget.charges):
        return None
    events = [event for _, event in planned if event is not None]
    if not events:
        return None
    epsilon, delta = epsilon_of(events, study.privacy.delta), study.privacy.delta
    left = max(0.0, budget.lifetime_epsilon - budget.epsilon)
    if epsilon > left + ROUNDING:
        sentence = f"The study may spend epsilon {epsilon:.3f}; {left:.3f} of {budget.lifetime_epsilon:g} is left."
        return Objection(Reason.BUDGET_SPENT, sentence)
    if budget.delta + delta > budget.lifetime_delta * (1 + ROUNDING):
        sentence = f"The study's delta {delta:g} on top of {budget.delta:g} is above {budget.lifetime_delta:g}."
        return Objection(Reason.BUDGET_SPENT, sentence)
    return None


def spent_so_far(study: StudySpec, noise_multiplier: float, tasks: int) -> PrivacySpent:
    """Return the site's own account of a study after so many training tasks. Never above what was charged."""
    event = training_event(study, noise_multiplier, tasks)
    return PrivacySpent(
        epsilon=epsilon_of([event], study.privacy.delta),
        delta=study.privacy.delta,
        events_digest=digest_of([event.model_dump(mode="json", by_alias=True)]),
    )


def _charge_of(study_digest: str, entries: list[LedgerEntry]) -> StudyCharge:
    own = [entry for entry in entries if entry.study_digest == study_digest]
    # Training and held-out patients differ within a study, but not across studies: composed as if they were the same.
    events = [entry.event for entry in own if entry.event is not None]
    unprotected = any(entry.event is None for entry in own)
    delta = own[0].delta
    return StudyCharge(study_digest, None if unprotected else epsilon_of(events, delta), delta)
