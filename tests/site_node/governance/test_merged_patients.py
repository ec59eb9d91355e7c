"""A patient under several pseudonyms: the ledger adds up what each was charged, and never loses any of it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from math import comb
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import dp_event, pld
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.messages import LedgerHead
from protocol.privacy_accounting import epsilon_of
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import FREE, LifetimeBudget, preset_budget, renyi_divergence
from protocol.study import StudySpec
from site_node.budget_report import budget_overview
from site_node.cohort_members import CohortMembers
from site_node.governance.ledger_entries import Entry, GapEntry, LedgerEntry
from site_node.governance.patient_accounts import SCHEMA, accounts_of, charged_patients, keep_group, plus, unaffording
from site_node.governance.policy import load_policy
from site_node.governance.privacy_ledger import accounts
from site_node.governance.records import open_records
from site_node.governance.same_patients import keep_same, same_patients
from site_node.sqlite import connect, transaction
from tests.fakes.gated_site import HELD_OUT, PERMISSIVE_POLICY, GatedSite, patients_of, study_of

TIGHT = PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n"  # one study of epsilon 4 fits, a second one does not
PERSON = PERMISSIVE_POLICY.replace("approval: automatic", "approval: person")
ROOMY = PERMISSIVE_POLICY + "lifetime_epsilon: 9\ncomposition: sum\nlifetime_delta: 1.0e-3\n"
EVENT = PrivacyEvent(mechanism="poisson-gaussian", sampling_rate=0.1, noise_multiplier=2.0, count=10)
BUDGETS = [preset_budget(9.0, 1e-3, maximum_epsilon=8.0, maximum_delta=1e-4, composition=c) for c in ("renyi", "sum")]


def charge(database: sqlite3.Connection, entries: list[Entry], study: int, group: Sequence[str]) -> None:
    with transaction(database):
        cohort = keep_group(database, group)
    digest = f"sha256:{study:064x}"
    fields = {"study_digest": digest, "cohort_digest": cohort, "patients": "training", "delta": 1e-5}
    entries.append(LedgerEntry.model_validate({**fields, "event": EVENT, "nonce": f"{study:032x}"}))


def gap(charged: dict[str, list[PrivacyEvent]]) -> GapEntry:
    head = LedgerHead(number=1, chain="sha256:" + "0" * 64)
    fields = {"study_digest": head.chain, "head": head, "delta": 1e-5, "charged": charged, "unprotected": False}
    return GapEntry.model_validate(fields)


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


@pytest.mark.parametrize("budget", BUDGETS, ids=["renyi", "sum"])
def test_a_lost_charge_may_have_been_that_of_all_of_a_patient_s_pseudonyms(
    database: sqlite3.Connection, budget: LifetimeBudget
) -> None:
    """Both trained on, one trained on and one held out, both held out: which it was nobody knows."""
    judged = PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=2.0, count=5)
    entries: list[Entry] = [gap({"training": [EVENT], "held-out": [judged]})]
    with transaction(database):
        keep_same(database, [["aa", "bb"]])
    held = accounts_of(entries, budget)
    assert held.everybody == max(budget.cost([EVENT], 1e-5), budget.cost([judged], 1e-5))
    own = dict(charged_patients(database, held))
    assert set(own) == {"aa", "bb"}
    placings = [
        budget.cost([EVENT.of_group(2)], 1e-5),
        plus(budget.cost([EVENT], 1e-5), budget.cost([judged], 1e-5)),
        budget.cost([judged.of_group(2)], 1e-5),
    ]
    borne = plus(held.everybody, own["aa"])
    assert borne == pytest.approx((max(one for one, _ in placings), max(other for _, other in placings)))
    left = (budget.limit[0] - held.everybody[0], budget.limit[1] - held.everybody[1])
    assert held.affords(FREE, left)
    assert set(unaffording(database, held, left)) == {"aa", "bb"}


def test_a_lost_charge_of_training_alone_costs_two_pseudonyms_a_group_s(database: sqlite3.Connection) -> None:
    with transaction(database):
        keep_same(database, [["aa", "bb"], ["cc", "dd", "ee"]])
    held = accounts_of([gap({"training": [EVENT]})], BUDGETS[0])
    own = dict(charged_patients(database, held))
    for who, people in (("aa", 2), ("ee", 3)):
        expected = BUDGETS[0].cost([EVENT.of_group(people)], 1e-5)
        assert plus(held.everybody, own[who]) == pytest.approx(expected)


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


@pytest.mark.parametrize(("composition", "may_be_judged"), [("renyi", False), ("sum", True)])
def test_one_id_in_training_and_another_held_out_is_one_patient_who_must_afford_both(
    tmp_path: Path, composition: str, may_be_judged: bool
) -> None:
    """Learnt after the cohort was counted: each of the two groups alone fits the patient, both together do not."""
    site = GatedSite.make(tmp_path, PERSON + f"lifetime_epsilon: 9\nmaximum_epsilon: 8\ncomposition: {composition}\n")
    one = study_of(name="one", rounds=3, privacy={"epsilon": 7.5, "delta": 1e-4}, evaluation={"noise_epsilon": 0.8})
    trained, judged = patients_of(0, 1)[0], patients_of(HELD_OUT, 1)[0]
    propose(site, one, training=40)
    propose(site, study_of(name="tells-the-merge"), training=40, first=5000, merged=[[trained, judged]])
    site.decide(one, "approved")
    assert (site.record(one).state, site.record(one).recount) == ("counting", 1)
    members = site.count_cohort(one, training=40, recount=1)
    site.sweep()
    assert members.spent_training == [trained]
    assert (judged in members.held_out) == may_be_judged  # if held out under both ids fits
    assert site.record(one).state == "approved"
    policy = load_policy(site.settings.policy)
    with closing(open_records(site.paths)) as database:
        held = accounts(database, policy)
        assert all(held.affords(own, FREE) for _, own in charged_patients(database, held))
        assert budget_overview(database, policy)["share_used"] <= 1


def propose(site: GatedSite, study: StudySpec, **count: Any) -> None:
    site.propose(study)
    site.sweep()
    site.count_cohort(study, **count)
    site.sweep()


def renamed(new: int, old: int, number: int) -> list[list[str]]:
    return [[after, before] for after, before in zip(patients_of(new, number), patients_of(old, number), strict=True)]


def test_one_patient_fewer_is_not_told_by_the_policy_after_all_were_renamed(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("minimum_patients: 1\n", "minimum_patients: 10\n", 1))
    first, narrower, again = (study_of(name=name) for name in ("to-80-years", "to-79-years", "again"))
    propose(site, first, training=40, held_out=0)
    propose(site, narrower, training=39, held_out=0, first=5000, merged=renamed(5000, 0, 39))
    assert [answer.training_patients for answer in site.answers(first)] == [40]
    assert (site.answers(narrower), site.record(narrower).state) == ([], "awaiting")
    assert "fewer than 10 patients" in site.record(narrower).detail
    propose(site, again, training=40, held_out=0, first=5000, merged=renamed(5000, 0, 40))
    assert [answer.training_patients for answer in site.answers(again)] == [40]  # the same patients under other ids


def test_a_merge_makes_no_small_group_known_that_no_figure_told(tmp_path: Path) -> None:
    """One patient was counted in two studies, under an id each: leaving them out of the first again tells of them."""
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("minimum_patients: 1\n", "minimum_patients: 10\n", 1))
    named = [study_of(name=name) for name in ("one", "other", "tells-the-merge", "one-but-the-patient")]
    merged = [[patients_of(5000, 1)[0], patients_of(0, 1)[0]]]
    for study, first in zip(named[:2], (0, 5000), strict=True):
        propose(site, study, training=40, held_out=0, first=first)
    propose(site, named[2], training=40, held_out=0, first=9000, merged=merged)
    propose(site, named[3], training=39, held_out=0, first=1)
    assert [bool(site.answers(study)) for study in named] == [True, True, True, False]


def test_who_was_trained_on_is_not_held_out_un_noised_under_another_id(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("hold_out_trained: always", "hold_out_trained: person"))
    train, judge = study_of(name="train"), study_of(name="judge")
    propose(site, train, training=40)
    propose(site, judge, training=40, first=700, held_out_from=9000, merged=renamed(9000, 0, 1))
    assert (site.answers(judge), site.record(judge).state) == ([], "awaiting")
    assert "another study trained" in site.record(judge).detail
