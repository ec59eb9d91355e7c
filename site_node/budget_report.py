"""What `wardround site budget` shows: plain data for this hospital's own people; nothing of it leaves.

Patients appear as the one who was charged most, and in groups whose sizes are rounded down to tens; groups of fewer
than ten are not counted at all.
"""

import sqlite3
from collections import Counter
from typing import Any

from protocol.privacy_filter import FREE, Cost, epsilon_from, largest_epsilon
from site_node.governance import hash_chain
from site_node.governance.ledger_entries import BudgetEntry, Entry, GapEntry, LedgerEntry, all_entries
from site_node.governance.ledger_heads import countersigned, is_behind
from site_node.governance.patient_accounts import Accounts, charged_patients, plus, verify_groups
from site_node.governance.policy import Policy
from site_node.governance.privacy_ledger import accounts, study_charges
from site_node.governance.same_patients import same_patients

SMALLEST_SHOWN = 10
MEANING = (
    "What an epsilon means: whatever somebody knew before, all that the studies show can multiply the odds that one "
    "patient took part by at most e^epsilon (1: 2.7, 3: 20, 8: about 3000), but for a chance of delta."
)
QUARTERS = ("up to a quarter", "up to a half", "up to three quarters", "more than three quarters")


def budget_overview(database: sqlite3.Connection, policy: Policy) -> dict[str, Any]:
    """Return the privacy ledger's account, and check its chain and its groups of patients.

    Raises: GateError if an entry or a group was changed.
    """
    number, head = hash_chain.verify(database, "ledger")
    entries, held = all_entries(database), accounts(database, policy)
    verify_groups(database, entries)
    own = _own(database, held)
    worst = _worst(held, own)
    return {
        "unit": "patient",
        "lifetime_epsilon": held.budget.epsilon,
        "lifetime_delta": held.budget.delta,
        "composition": held.budget.composition,
        "order": held.budget.order,
        "epsilon": held.budget.epsilon_spent(worst),
        "share_used": share_used(worst, held.budget.limit),
        "meaning": MEANING,
        "fits_epsilon": _fits(held, worst, policy),
        "fits_epsilon_new_patient": _fits(held, held.everybody, policy),
        "fits_delta": policy.maximum_delta,
        "used": _used(held, own),
        "studies": [
            {
                "study_digest": c.study_digest,
                "epsilon": c.epsilon,
                "delta": c.delta,
                "unprotected": c.epsilon is None,
                "held_out_unprotected": c.held_out_unprotected,
            }
            for c in study_charges([entry for entry in entries if isinstance(entry, LedgerEntry)])
        ],
        "budgets": _budgets(entries),
        "gaps": [
            {"study_digest": entry.study_digest, "number": entry.number, "unprotected": entry.unprotected}
            for entry in entries
            if isinstance(entry, GapEntry)
        ],
        "entries": number,
        "head": head,
        "told": countersigned(database),
        "behind": is_behind(database),
    }


def spent_most(database: sqlite3.Connection, held: Accounts) -> Cost:
    """Return what the patient who was charged most has spent; what everybody bears where none was charged.

    Raises: GateError if an entry was changed.
    """
    hash_chain.verify(database, "ledger")
    return _worst(held, _own(database, held))


def _own(database: sqlite3.Connection, held: Accounts) -> list[Cost]:
    several = same_patients(database)
    return [cost for who, cost in charged_patients(database, held) if who == several.get(who, (who,))[0]]


def _worst(held: Accounts, own: list[Cost]) -> Cost:
    return max((plus(held.everybody, cost) for cost in own), default=held.everybody)


def share_used(spent: Cost, limit: Cost) -> float:
    """Return the used share of a lifetime's budget: of its Renyi divergence, or the larger of epsilon's and delta's."""
    return max((had / most for had, most in zip(spent, limit, strict=True) if most > 0), default=1.0)


def percent(share: float) -> str:
    """Return a share in words that never call a small charge none."""
    return "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def sentences_of(found: dict[str, Any]) -> list[str]:
    """Return the overview as lines for a terminal."""
    how = "added up" if found["composition"] == "sum" else f"a Renyi filter of order {found['order']}"
    most = f"epsilon {found['lifetime_epsilon']:g}, delta {found['lifetime_delta']:g}"
    lines = [
        f"Lifetime budget of each patient: {most} ({how}).",
        f"Used of it at most: {percent(found['share_used'])} of {_measure(found)}, by the patient who was "
        f"charged most. {found['entries']} entries, chain intact.",
        f"As one bound over all studies: epsilon {found['epsilon']:.3f}, at delta {found['lifetime_delta']:g}"
        f"{_floor(found)}.",
        MEANING,
        f"What still fits, at delta {found['fits_delta']:g}: epsilon {found['fits_epsilon']:.2f} for every patient, "
        f"{found['fits_epsilon_new_patient']:.2f} for one who was in no study.",
    ]
    if found["behind"]:
        lines.append("THE LEDGER IS BEHIND the hub's copy of it: nothing is spent. See `wardround site reconcile`.")
    return [*lines, *map(_used_line, found["used"]), *map(_study_line, found["studies"]), *_history_lines(found)]


def _measure(found: dict[str, Any]) -> str:
    return "epsilon or delta" if found["composition"] == "sum" else f"the Renyi divergence of order {found['order']}"


def _floor(found: dict[str, Any]) -> str:
    if found["composition"] == "sum" or not found["epsilon"]:
        return ""
    floor = epsilon_from(0.0, found["lifetime_delta"], found["order"])
    return f" (of which {floor:.3f} is the price of turning this divergence into an epsilon, whatever was charged)"


def _used_line(entry: dict[str, Any]) -> str:
    number = "fewer than 10" if entry["patients_at_least"] is None else f"{entry['patients_at_least']} or more"
    return f"  {entry['share']} of the budget used: {number} patients"


def _study_line(study: dict[str, Any]) -> str:
    epsilon = "NO DIFFERENTIAL PRIVACY" if study["unprotected"] else f"epsilon {study['epsilon']:.3f}"
    held_out = "; held-out patients: UNPROTECTED, judged un-noised" if study["held_out_unprotected"] else ""
    return f"  study {study['study_digest']}  {epsilon}, at delta {study['delta']:g} (the study's own){held_out}"


def _history_lines(found: dict[str, Any]) -> list[str]:
    words = {True: "countersigned by the hub", False: "REFUSED by the hub", None: "not yet countersigned"}
    return [
        *(f"  study {gap['study_digest']}  was lost: charged to every patient" for gap in found["gaps"]),
        *(
            f"  entry {budget['number']}: lifetime budget {'RAISED' if budget['raised'] else 'changed'} to epsilon "
            f"{budget['epsilon']:g}, delta {budget['delta']:g}"
            for budget in found["budgets"][1:]
        ),
        *(f"  head {told['number']} {told['chain']}: {words[told['countersigned']]}" for told in found["told"]),
    ]


def _fits(held: Accounts, spent: Cost, policy: Policy) -> float:
    return min(policy.maximum_epsilon, largest_epsilon(held.budget, spent, policy.maximum_delta))


def _used(held: Accounts, own: list[Cost]) -> list[dict[str, Any]]:
    quarters = Counter(_quarter(plus(held.everybody, cost), held.budget.limit) for cost in own if cost != FREE)
    return [
        {"share": QUARTERS[quarter], "patients_at_least": _coarse(quarters[quarter])} for quarter in sorted(quarters)
    ]


def _quarter(spent: Cost, limit: Cost) -> int:
    return min(3, max(0, int(4 * share_used(spent, limit))))


def _coarse(number: int) -> int | None:
    return number // SMALLEST_SHOWN * SMALLEST_SHOWN if number >= SMALLEST_SHOWN else None


def _budgets(entries: list[Entry]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for entry in entries:
        if isinstance(entry, BudgetEntry):
            last = listed[-1] if listed else None
            more = last is not None and (entry.budget.epsilon > last["epsilon"] or entry.budget.delta > last["delta"])
            listed.append({"number": entry.number, "raised": more, **entry.budget.model_dump(mode="json")})
    return listed
