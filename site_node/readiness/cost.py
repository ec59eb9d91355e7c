"""What a study would cost this hospital's patients: its own epsilon, the hospital's policy, what still fits.

The accounting is the ledger's (`protocol/privacy_accounting.py`). The ledger is the gate's: where this user may not
read it, that is said, and the command that shows it is named.
"""

import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from protocol.errors import ProtocolError
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import FREE
from protocol.study import StudySpec
from site_node.budget_report import spent_most
from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.errors import SiteError
from site_node.governance.policy import Patients, Policy, load_policy, objections_to, planned_events
from site_node.governance.privacy_ledger import accounts, largest_fitting, study_costs
from site_node.governance.records import open_records
from site_node.settings import SiteSettings

CHECK = "privacy"


@dataclass(frozen=True)
class Cost:
    """What is found of a study's price; `epsilon` of a group is None where nothing bounds what is told of it."""

    findings: tuple[Finding, ...]
    figures: dict[str, Any]


def find_cost(settings: SiteSettings, study: StudySpec, *, trains: bool, holds_out: bool) -> Cost:
    """Account for the study's planned maximum, and compare it with the policy and with what the ledger has left."""
    try:
        noise = noise_multiplier_of(study)
        policy = load_policy(settings.policy)
        objections = objections_to(policy, study, noise)
    except (ProtocolError, SiteError) as error:
        return Cost((problem(CHECK, str(error), "Ask the researcher, or correct policy.yaml."),), {})
    planned = planned_events(study, noise, Patients(int(trains), int(holds_out)))
    epsilon = {group: _epsilon_of(study, [e for which, e in planned if which == group]) for group, _ in planned}
    findings = [_said(group, value, study.privacy.delta) for group, value in epsilon.items()]
    remedy = "The policy decides; change policy.yaml, or refuse."
    findings += [problem("policy", objection.sentence, remedy) for objection in objections]
    findings += _what_is_left(settings, policy, study, noise, epsilon)
    return Cost(tuple(findings), {"epsilon": epsilon, "delta": study.privacy.delta, "noise_multiplier": noise})


def _epsilon_of(study: StudySpec, events: list[PrivacyEvent | None]) -> float | None:
    if None in events:
        return None
    found = epsilon_of([event for event in events if event is not None], study.privacy.delta)
    return None if math.isinf(found) else found


def _said(group: str, epsilon: float | None, delta: float) -> Finding:
    if epsilon is None:
        says = f"{group} patients: NO differential privacy; nothing bounds what is told of them."
        return warning(CHECK, says, "Approve only what this hospital may share.")
    return fine(CHECK, f"{group} patients: at most epsilon {epsilon:.3g} at delta {delta:g}, over the whole study.")


def _what_is_left(
    settings: SiteSettings,
    policy: Policy,
    study: StudySpec,
    noise: float | None,
    epsilon: Mapping[str, float | None],
) -> Iterator[Finding]:
    if epsilon.get("training") is None:
        return
    try:
        database = open_records(settings.paths)
    except (PermissionError, SiteError, sqlite3.OperationalError):
        says = "The privacy ledger is the gate's, and this user may not read it."
        yield Finding("budget", "unseen", says, "As the gate's user: wardround site budget DIR")
        return
    try:
        held = accounts(database, policy)
        spent = spent_most(database, held)
    finally:
        database.close()
    costs = [cost for group, cost in study_costs(study, noise, held.budget).items() if group in epsilon]
    room = (
        f"one like it of up to epsilon {largest_fitting(held.budget, study, spent):.3g} still fits that of every "
        f"patient (lifetime {held.budget.epsilon:.3g}, used at most {held.budget.epsilon_spent(spent):.3g})"
    )
    if all(held.budget.fits(spent, cost) for cost in costs):
        yield fine("budget", f"It fits the lifetime budget: {room}.")
    elif all(held.affords(FREE, cost) for cost in costs):
        says = f"Some patients' lifetime budgets have less left than it needs: {room}; they are left out."
        yield warning("budget", says, "See `wardround site budget DIR`.")
    else:
        says = f"It needs more than the lifetime budget has left of a patient who was in no study: {room}."
        yield problem("budget", says, "Ask the researcher for a smaller privacy.epsilon or delta, or refuse.")
