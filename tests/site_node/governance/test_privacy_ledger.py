"""The privacy ledger: charged before anything can be spent, over-counting, outliving studies, unchangeable."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from compose.simulated_site import nonces_of
from protocol.messages import Approval, Reason, StudyClosed, TaskKind, UpdateNotice
from protocol.privacy_accounting import epsilon_of
from site_node.budget_report import sentences_of
from site_node.errors import GateError
from site_node.governance import hash_chain
from site_node.governance.ledger_entries import all_entries
from site_node.governance.privacy_ledger import is_charged, ledger_entries, study_charges
from site_node.governance.records import StudyRecord, open_records
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of
from tests.fakes.power_cuts import PowerCutError


def spent(site: GatedSite) -> float:
    """Return the sum of what all studies were charged."""
    return sum(charge.epsilon or 0.0 for charge in study_charges(ledger_entries(open_records(site.paths))))


def test_the_planned_maximum_is_charged_before_the_first_task(site: GatedSite) -> None:
    site.join(study_of())
    assert 3.5 < spent(site) <= 4.0


def test_the_charge_covers_whatever_was_sent_and_stays_when_the_study_ends_early(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.hand_over(site.give(site.task(study)))
    site.sweep()
    [notice] = [message for message in site.sent() if isinstance(message, UpdateNotice)]
    before = spent(site)
    assert notice.privacy is not None
    assert notice.privacy.epsilon < before
    site.post(StudyClosed(study_digest=study.digest, state="stopped"))
    site.sweep()
    assert spent(site) == before


def test_no_approval_is_in_the_outbox_without_its_charge(site: GatedSite) -> None:
    """Whatever step the power fails at, an approval that can be sent has been charged; never the other way round."""
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study)

    def cut(step: str) -> None:
        approved = any(isinstance(message, Approval) for message in site.sent())
        assert len(ledger_entries(open_records(site.paths))) >= int(approved)
        if step == "approval recorded":
            raise PowerCutError

    site.checkpoint = cut
    with pytest.raises(PowerCutError):
        site.sweep()
    assert len(ledger_entries(open_records(site.paths))) == 2
    assert site.sent() == []
    site.checkpoint = lambda step: None
    site.start()
    site.sweep()
    assert len(ledger_entries(open_records(site.paths))) == 2
    assert len(site.sent()) == 1
    assert len(site.charges()) == 1


def test_a_study_that_does_not_fit_into_the_lifetime_budget_waits_with_what_would_fit(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n")
    site.join(study_of())
    second = study_of(name="second")
    site.join(second)
    assert site.answers(second) == []
    assert site.record(second).reason is Reason.BUDGET_SPENT
    row = open_records(site.paths).execute("SELECT detail FROM studies WHERE digest = ?", (second.digest,)).fetchone()
    fits = float(re.search(r"privacy.epsilon at most (\d+\.\d+)", row["detail"]).group(1))  # type: ignore[union-attr]
    assert 0.5 < fits < 3.5
    too_large = study_of(name="too-large", privacy={"epsilon": fits + 0.2, "delta": 1e-4})
    site.join(too_large)
    assert (site.record(too_large).state, site.answers(too_large)) == ("awaiting", [])
    site.join(study_of(name="fitting", privacy={"epsilon": fits, "delta": 1e-4}))
    assert site.sent()[-1].decision == "approved"  # type: ignore[attr-defined]
    assert site.budget()["epsilon"] <= 4.5


SUM = PERMISSIVE_POLICY.replace("automatic", "person") + "lifetime_epsilon: 10\nlifetime_delta: 1.0e-4\n"


@pytest.mark.parametrize("figures", [{}, {"count_epsilon": 0.1}, {"receipt_epsilon": 0.1}], ids=str)
def test_where_studies_add_up_by_sum_a_study_s_epsilon_covers_its_noised_figures(
    tmp_path: Path, figures: dict[str, float]
) -> None:
    """Of (10, 1e-4), (5, 4e-5) is spent: (5, 6e-5) is left, which a study of epsilon 5 and delta 4e-5 fits."""
    site = GatedSite.make(tmp_path, SUM + "composition: sum\n")

    def proposed(name: str, epsilon: float, figures: dict[str, float]) -> StudyRecord:
        study = study_of(name=name, privacy={"epsilon": epsilon, "delta": 4e-5} | figures)
        site.propose(study)
        site.sweep()
        site.count_cohort(study, count_epsilon=study.privacy.count_epsilon)
        site.sweep()
        if site.record(study).reason is None:
            site.decide(study, "approved")
        return site.record(study)

    assert proposed("first", 5.0, {}).state == "approved"
    second = proposed("second", 6.0, figures)
    assert second.reason is Reason.BUDGET_SPENT
    assert "With privacy.epsilon at most 5.00 it would fit." in second.detail
    assert proposed("third", 5.0, figures).state == "approved"


def test_studies_add_up_and_never_less_than_their_joint_composition(site: GatedSite) -> None:
    for name in ("first", "second"):
        site.join(study_of(name=name))
    events = [entry.event for entry in ledger_entries(open_records(site.paths)) if entry.event is not None]
    assert spent(site) >= epsilon_of(events, 2e-4)


def test_noised_evaluations_are_charged_too(site: GatedSite) -> None:
    site.join(study_of(evaluation={"noise_epsilon": 0.1, "at_most": 5}))
    assert [entry.patients for entry in ledger_entries(open_records(site.paths))] == ["training", "held-out"]
    [charge] = site.charges()
    assert {patients: len(events) for patients, events in charge.charged.items()} == {"training": 1, "held-out": 1}


def joined_with(site: GatedSite, training: int, held_out: int, **changes: Any) -> tuple[str, list[str]]:
    """Return how a study stands that touches so many patients, and which of them are charged."""
    study = study_of(**changes)
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training, held_out)
    site.sweep()
    own = [entry for entry in ledger_entries(open_records(site.paths)) if entry.study_digest == study.digest]
    return site.record(study).state, [entry.patients for entry in own]


@pytest.mark.parametrize(("training", "held_out", "charged"), [(40, 0, ["training"]), (0, 20, ["held-out"])])
def test_patients_whom_a_study_does_not_touch_are_not_charged(
    site: GatedSite, training: int, held_out: int, charged: list[str]
) -> None:
    assert joined_with(site, training, held_out, evaluation={"noise_epsilon": 0.1}) == ("approved", charged)


def test_a_site_with_nothing_to_charge_still_evaluates_and_the_ledger_says_that_it_was_un_noised(
    site: GatedSite,
) -> None:
    assert joined_with(site, 0, 20) == ("approved", ["held-out"])
    [entry] = ledger_entries(open_records(site.paths))
    assert entry.event is None
    assert site.charges() == []
    [study] = site.budget()["studies"]
    assert (study["epsilon"], study["unprotected"], study["held_out_unprotected"]) == (0.0, False, True)
    assert "held-out patients: UNPROTECTED" in "\n".join(sentences_of(site.budget()))
    task = site.give(site.task(study_of(), 1, TaskKind.EVALUATE))
    assert (site.verdict(task.task_id) or {})["verdict"] == "accept"


def test_a_site_that_only_evaluates_stays_in_its_budget_too(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "lifetime_epsilon: 3\n")
    assert joined_with(site, 0, 20, evaluation={"noise_epsilon": 1.0}) == ("awaiting", [])
    assert site.record(study_of(evaluation={"noise_epsilon": 1.0})).reason is Reason.BUDGET_SPENT


@pytest.mark.parametrize(("at_most", "charged"), [(4, 4), (1000, 3 + 1 + study_of().privacy.spare_tasks)])
def test_no_more_evaluations_are_charged_than_there_are_versions(site: GatedSite, at_most: int, charged: int) -> None:
    joined_with(site, 0, 20, evaluation={"noise_epsilon": 0.1, "at_most": at_most})
    [entry] = ledger_entries(open_records(site.paths))
    assert entry.event is not None
    assert entry.event.count == charged


def test_a_study_without_dp_stands_in_the_ledger_as_such(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\n")
    site.join(study_of(privacy={"epsilon": None}))
    [study] = site.budget()["studies"]
    assert (study["epsilon"], study["unprotected"]) == (None, True)
    [charge] = site.charges()
    assert (charge.unprotected, charge.charged) == (True, {})


@pytest.mark.parametrize("table", ["ledger", "egress"])
def test_entries_cannot_be_changed_or_deleted(site: GatedSite, table: str) -> None:
    site.join(study_of())
    database = open_records(site.paths)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        database.execute(f"UPDATE {table} SET entry = x'00'")  # noqa: S608 - a table's name of this test
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        database.execute(f"DELETE FROM {table}")  # noqa: S608 - a table's name of this test


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE ledger SET entry = replace(entry, '4', '5')",
        "UPDATE ledger SET entry = CAST(replace(CAST(entry AS TEXT), '0.2', '0.1') AS BLOB)",
        "DELETE FROM ledger WHERE number = 1",
    ],
)
def test_what_was_changed_behind_our_back_is_found(site: GatedSite, forgery: str) -> None:
    for name in ("first", "second"):
        site.join(study_of(name=name))
    database = open_records(site.paths)
    assert hash_chain.verify(database, "ledger")[0] == 5
    database.execute("DROP TRIGGER ledger_keeps")
    database.execute("DROP TRIGGER ledger_stays")
    database.execute(forgery)
    with pytest.raises(GateError, match=r"Entry [12] "):
        hash_chain.verify(database, "ledger")


def test_an_entry_of_an_unknown_kind_stops_charging(site: GatedSite) -> None:
    database = open_records(site.paths)
    hash_chain.append(database, "ledger", {"schema": "wardround.ledger-entry/9", "time": 0.0})
    with pytest.raises(GateError, match="unknown kind"):
        ledger_entries(database)


def test_whether_a_study_is_charged_is_a_query_that_uses_its_index(site: GatedSite) -> None:
    study = study_of()
    database = open_records(site.paths)
    assert not is_charged(database, study.digest)
    site.join(study)
    assert is_charged(database, study.digest)
    plan = database.execute(
        "EXPLAIN QUERY PLAN SELECT 1 FROM ledger WHERE json_extract(CAST(entry AS TEXT), '$.schema') = ? "
        "AND json_extract(CAST(entry AS TEXT), '$.study_digest') = ? LIMIT 1",
        ("a", "b"),
    ).fetchone()
    assert "ledger_by_study" in plan["detail"]


def test_with_the_same_nonces_the_ledger_is_the_same_whenever_it_was_written(tmp_path: Path) -> None:
    """Its head goes into tasks, whose digests key the noise: a simulation repeats it, so no clock may be in it."""
    heads = []
    for name, now in (("one", 1_900_000_000.0), ("other", 1_950_000_000.0)):
        site = GatedSite.make(tmp_path / name)
        site.now, site.nonce = now, nonces_of(seed=7, site="st-anna")
        site.join(study_of())
        heads.append(hash_chain.head(open_records(site.paths), "ledger"))
    assert heads[0] == heads[1]


def test_the_simulation_s_nonces_are_repeatable_and_each_is_another() -> None:
    nonces = nonces_of(1, "anna"), nonces_of(1, "anna"), nonces_of(2, "anna"), nonces_of(1, "bela")
    first, again, other_seed, other_site = ([nonce() for _ in range(3)] for nonce in nonces)
    assert first == again
    assert len({*first, *other_seed, *other_site}) == 9


def test_the_first_use_of_a_budget_and_each_change_stand_in_the_ledger(site: GatedSite) -> None:
    site.join(study_of())
    site.join(study_of(name="second"))
    assert [entry["raised"] for entry in site.budget()["budgets"]] == [False]
    site.with_policy(PERMISSIVE_POLICY + "lifetime_epsilon: 48\n")
    site.join(study_of(name="third"))
    site.with_policy(PERMISSIVE_POLICY + "lifetime_epsilon: 48\nmaximum_epsilon: 4\n")
    site.join(study_of(name="fourth", privacy={"epsilon": 1.0, "delta": 1e-4}))
    budgets = site.budget()["budgets"]
    assert [(entry["epsilon"], entry["raised"]) for entry in budgets] == [(24.0, False), (48.0, True)]
    assert [type(entry).__name__ for entry in all_entries(open_records(site.paths))] == [
        "BudgetEntry",
        *["LedgerEntry"] * 4,
        "BudgetEntry",
        *["LedgerEntry"] * 4,
    ]
