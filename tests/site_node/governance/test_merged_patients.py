"""A patient under several pseudonyms: the ledger adds up what each was charged, and never loses any of it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from math import comb
from pathlib import Path

import pytest
from dp_accounting import dp_event, pld
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.privacy_accounting import epsilon_of
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import LifetimeBudget, preset_budget, renyi_divergence
from site_node.budget_report import budget_overview
from site_node.cohort_members import CohortMembers, group_digest
from site_node.governance.ledger_entries import Entry, LedgerEntry
from site_node.governance.patient_accounts import SCHEMA, accounts_of, charged_patients, keep_group
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records
from site_node.governance.same_patients import keep_same, same_patients
from site_node.sqlite import connect, transaction
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, patients_of, study_of

TIGHT = PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n"  # one study of epsilon 4 fits, a second one does not
ROOMY = PERMISSIVE_POLICY + "lifetime_epsilon: 9\ncomposition: sum\nlifetime_delta: 1.0e-3\n"
EVENT = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=0.1, noise_multiplier=2.0, count=10)
BUDGETS = [preset_budget(9.0, 1e-3, maximum_epsilon=8.0, maximum_delta=1e-4, composition=c) for c in ("renyi", "sum")]


def charge(database: sqlite3.Connection, entries: list[Entry], study: int, group: Sequence[str]) -> None:
    cohort = group_digest(list(group))
    with transaction(database):
        keep_group(database, cohort, list(group))
    digest = f"sha256:{study:064x}"
    fields = {"study_digest": digest, "cohort_digest": cohort, "patients": "training", "delta": 1e-5}
    entries.append(LedgerEntry.model_validate({**fields, "event": EVENT, "nonce": f"{study:032x}"}))


def costs(database: sqlite3.Connection, entries: Sequence[Entry], budget: LifetimeBudget) -> dict[str, float]:
    return {who: cost[0] for who, cost in charged_patients(database, accounts_of(entries, budget))}


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    return connect(tmp_path / "gate.sqlite", SCHEMA)


@pytest.mark.parametrize("budget", BUDGETS, ids=["renyi", "sum"])
def test_after_a_merge_each_pseudonym_bears_what_both_were_charged(
    database: sqlite3.Connection, budget: LifetimeBudget
) -> None:
    entries: list[Entry] = []
    charge(database, entries, 1, ["aa", "cc"])
    charge(database, entries, 2, ["bb", "cc"])
    before = costs(database, entries, budget)
    assert before["aa"] == before["bb"] == before["cc"] / 2
    with transaction(database):
        keep_same(database, [["bb", "aa", "dd"]])
    assert costs(database, entries, budget) == dict.fromkeys(["aa", "bb", "dd", "cc"], pytest.approx(before["cc"]))


@pytest.mark.parametrize("budget", BUDGETS, ids=["renyi", "sum"])
def test_two_pseudonyms_in_one_study_cost_more_than_twice(database: sqlite3.Connection, budget: LifetimeBudget) -> None:
    entries: list[Entry] = []
    charge(database, entries, 1, ["aa", "bb", "cc"])
    with transaction(database):
        keep_same(database, [["aa", "bb"]])
    found = costs(database, entries, budget)
    both = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=0.19, noise_multiplier=1.0, count=10)
    assert found["aa"] == found["bb"] == pytest.approx(budget.cost([both], 1e-5)[0])
    assert found["aa"] > 2 * found["cc"]


@settings(max_examples=20, deadline=None)
@given(
    groups=st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=4),
    merged=st.lists(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=3, unique=True), max_size=3),
)
def test_no_merge_ever_takes_a_charge_away(groups: list[set[str]], merged: list[list[str]]) -> None:
    with closing(connect(Path(":memory:"), SCHEMA)) as database:
        entries: list[Entry] = []
        for study, group in enumerate(groups):
            charge(database, entries, study, sorted(group))
        before = costs(database, entries, BUDGETS[0])
        with transaction(database):
            keep_same(database, merged)
        after = costs(database, entries, BUDGETS[0])
        for own in set(same_patients(database).values()):
            charged = [before[who] for who in own if who in before]
            assert all(after.get(who, 0.0) >= sum(charged) * (1 - 1e-12) for who in own)
        assert all(after[who] >= cost * (1 - 1e-12) for who, cost in before.items())


def test_what_was_joined_cannot_be_changed_or_taken_back(database: sqlite3.Connection) -> None:
    with transaction(database):
        keep_same(database, [["aa", "bb"]])
        keep_same(database, [["aa", "bb"]])
    for statement in ("DELETE FROM same_patients", "UPDATE same_patients SET other = 'cc'"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            database.execute(statement)


@pytest.mark.parametrize("people", [2, 3, 5])
def test_a_group_s_event_is_no_cheaper_than_the_mixture_of_its_draws(people: int) -> None:
    """The tight accountant of a group's draws, which the ledger does not have, is below the bound that it uses."""
    rate, noise, count, delta = 0.1, 4.0, 20, 1e-5
    event = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=rate, noise_multiplier=noise, count=count)
    chances = [comb(people, k) * rate**k * (1 - rate) ** (people - k) for k in range(people + 1)]
    mixture = dp_event.MixtureOfGaussiansDpEvent(noise, [float(k) for k in range(people + 1)], chances)
    tight = pld.PLDAccountant(value_discretization_interval=1e-3)
    tight.compose(dp_event.SelfComposedDpEvent(mixture, count))
    bound = epsilon_of([event.of_group(people)], delta)
    assert epsilon_of([event], delta) < tight.get_epsilon(delta) <= bound * (1 + 1e-3)


@pytest.mark.parametrize("mechanism", ["poisson-skellam", "discrete-laplace", "poisson-gaussian"])
def test_every_mechanism_has_its_group_s_cost(mechanism: str) -> None:
    event = PrivacyEvent.model_validate(
        {"mechanism": mechanism, "sampling_rate": 1.0, "noise_multiplier": 8.0, "count": 1}
    )
    assert event.of_group(1) == event
    one, two = (renyi_divergence([event.of_group(people)], 2) for people in (1, 2))
    assert two >= 2 * one


def join(
    site: GatedSite, name: str, merged: Sequence[Sequence[str]] = (), *, training: int, first: int = 0
) -> CohortMembers:
    study = study_of(name=name)
    site.propose(study)
    site.sweep()
    members = site.count_cohort(study, training=training, first=first, merged=merged)
    site.sweep()
    return members


def test_a_merge_after_the_charge_leaves_the_patient_out_under_every_id(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, TIGHT)
    join(site, "first", training=40)
    charged, renamed = patients_of(0, 1)[0], patients_of(5000, 1)[0]
    members = join(site, "second", training=20, first=5000, merged=[[renamed, charged]])
    assert renamed in members.training  # the gate did not know yet, and now looks again
    study = study_of(name="second")
    assert site.record(study).recount == 1
    members = site.count_cohort(study, training=20, first=5000, recount=1)
    site.sweep()
    assert members.spent_training == [renamed]
    assert len(site.charges()) == 2


def test_who_is_counted_twice_must_afford_both(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, ROOMY)
    one, other = patients_of(0, 2)
    join(site, "first", training=20, first=1000, merged=[[one, other]])
    members = join(site, "second", training=40)  # the merge table lost the row: both stand in the list again
    assert {one, other} <= set(members.training)
    study = study_of(name="second")
    assert site.record(study).recount == 1
    members = site.count_cohort(study, training=40, recount=1)
    site.sweep()
    assert members.spent_training == [one, other]
    assert site.record(study).state == "approved"


def test_a_merged_patient_is_one_patient_in_the_administrator_s_account(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, TIGHT)
    everybody = patients_of(0, 20)
    join(site, "first", training=20)
    join(site, "second", training=20, first=5000, merged=[everybody[:5], everybody[5:11]])
    with closing(open_records(site.paths)) as database:
        found = budget_overview(database, load_policy(site.settings.policy))
    assert [entry["patients_at_least"] for entry in found["used"]] == [20, None]  # 9 + 20, and 2, not 11
