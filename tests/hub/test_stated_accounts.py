"""Accounts that updates state: the accountant is asked about each once, and answers as if nobody had asked before."""

from typing import Any

import pytest

from hub.services import Services
from hub.storage import ledger_stores
from hub.studies import ledger_heads, stated_accounts
from hub.studies.stated_accounts import TRUE_STATEMENTS, TrueStatements
from protocol import accountants, privacy_accounting
from protocol.messages import RoundTask, TaskKind, UpdateNotice
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from protocol.study import StudySpec
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Queue
from tests.hub.rounds.bench import Bench, filled, spent_after, study_of

pytestmark = pytest.mark.both_databases

PRIVATE: dict[str, Any] = {"privacy": {"epsilon": 8.0, "delta": 1e-4}, "participants": {"training_patients": 100}}


@pytest.fixture
def bench(services: Services, hospitals: list[Hospital], queue: Queue) -> Bench:
    return Bench(services, hospitals, queue)


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the accountant was asked to compose, from now on."""
    asked: list[Any] = []
    compose = accountants.epsilon_by_loss

    def noted(merged: Any, delta: float) -> float:
        asked.append((merged, delta))
        return compose(merged, delta)

    monkeypatch.setattr(accountants, "epsilon_by_loss", noted)
    return asked


def forget_all() -> None:
    """Forget what a process that was just started does not know."""
    TRUE_STATEMENTS.clear()
    stated_accounts._tasks_with.cache_clear()
    privacy_accounting._composed_epsilon.cache_clear()


def training(bench: Bench) -> list[tuple[RoundTask, UpdateNotice]]:
    """Return the training tasks of a round that is open, each with an honest notice, to a hub that was just started."""
    bench.begin(study_of(**PRIVATE))
    tasks = bench.tasks(TaskKind.TRAIN)
    found = [(task, bench.notice(task, bench.packed(filled(1.0)))) for task in tasks]
    forget_all()
    return found


def problem(bench: Bench, notice: UpdateNotice, tasks: int = 1, **changes: Any) -> str | None:
    account = STATED[tasks].model_copy(update=changes)
    return ledger_heads.account_problem(bench.services, notice.site, notice.model_copy(update={"privacy": account}))


STATED = {tasks: spent_after(study_of(**PRIVATE), tasks) for tasks in (1, 2)}


def test_the_accountant_is_asked_once_for_what_all_sites_of_a_round_state(
    bench: Bench, compositions: list[Any]
) -> None:
    notices = [notice for _, notice in training(bench)]
    compositions.clear()
    for notice in notices * 3:
        assert problem(bench, notice) is None
    assert len(compositions) == 1
    for notice in notices:
        assert problem(bench, notice, tasks=2) is None
    assert len(compositions) == 2


def test_a_process_that_was_started_anew_believes_the_update_that_was_accepted(
    bench: Bench, compositions: list[Any]
) -> None:
    (first, _), (_, second), (_, third) = training(bench)
    bench.update(first, filled(1.0))
    forget_all()
    compositions.clear()
    assert problem(bench, second) is None
    assert problem(bench, third) is None
    assert compositions == []


def test_an_update_that_was_announced_only_proves_nothing(bench: Bench, compositions: list[Any]) -> None:
    (first, notice), (_, second), _ = training(bench)
    bench.announce(first, notice)
    forget_all()
    compositions.clear()
    assert problem(bench, second) is None
    assert len(compositions) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"epsilon": 0.1}, "its events give"), ({"events_digest": "sha256:" + "0" * 64}, "not those of any number")],
)
def test_what_is_false_stays_false_however_often_it_is_stated(
    bench: Bench, compositions: list[Any], changes: dict[str, Any], words: str
) -> None:
    (_, first), (_, second), _ = training(bench)
    compositions.clear()
    assert problem(bench, first) is None
    for notice in (first, second, second):
        assert words in (problem(bench, notice, **changes) or "")
    assert len(compositions) == 1


def test_a_true_account_is_still_held_against_the_site_s_own_charge(bench: Bench) -> None:
    (_, first), *_ = training(bench)
    assert problem(bench, first) is None
    with bench.services.transaction() as session:
        for row in ledger_stores.charges_of_study(session, first.site, first.study_digest):
            row.training_epsilon = STATED[1].epsilon / 2
    assert "was charged" in (problem(bench, first) or "")


def test_an_account_of_fewer_tasks_than_the_hospital_was_given_is_refused_though_it_was_true_a_round_ago(
    bench: Bench, compositions: list[Any]
) -> None:
    """In round 2 all three state what round 1 spent: true then, and remembered, and not what they spent by now."""
    bench.begin(study_of(**PRIVATE))
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    second, payload = bench.tasks(TaskKind.TRAIN), bench.packed(filled(1.0))
    assert [(task.round, task.sequence) for task in second] == [(2, 2)] * 3
    notices = [bench.notice(task, payload, privacy=STATED[1]) for task in second]
    for is_forgotten in (False, True):  # remembered by this process, then by the update that was accepted
        if is_forgotten:
            forget_all()
        compositions.clear()
        for notice in notices:
            words = problem(bench, notice) or ""
            assert "by 1 training task; the site was given 2" in words
        assert compositions == []
    for task, notice in zip(second, notices, strict=True):
        bench.send(task, notice, payload)
    assert {row["train_state"] for row in bench.rounds()[2]["sites"]} == {"refused"}


def test_a_hospital_that_was_asked_less_often_states_its_own_number_of_tasks(bench: Bench) -> None:
    """Whoever is asked for the first time in a study's second round has spent one task, not two."""
    (_, first), *_ = training(bench)
    assert problem(bench, first.model_copy(update={"round": 2}), tasks=1) is None


def test_a_hospital_may_state_more_tasks_than_a_restored_hub_knows_of(bench: Bench) -> None:
    (_, first), *_ = training(bench)
    assert problem(bench, first, tasks=2) is None


@pytest.mark.parametrize("tasks", [1, 2])
def test_what_is_kept_is_what_the_accountant_says_without_it(tasks: int) -> None:
    study: StudySpec = study_of(**PRIVATE)
    noise = noise_multiplier_of(study)
    assert noise is not None
    events = training_events(study, noise, tasks)
    forget_all()
    fresh = accountants.epsilon_by_loss(privacy_accounting._merged(events), 1e-4)
    for about in (7, tasks):
        assert stated_accounts._tasks_with(study.canonical_bytes(), noise, STATED[tasks].events_digest, about) == tasks
    for _ in range(2):
        assert epsilon_of(events, 1e-4) == pytest.approx(fresh, rel=0, abs=1e-12)


def test_the_memory_of_true_statements_is_bounded_and_keeps_the_newest() -> None:
    memory = TrueStatements(most=2)
    first, second, third = (("study", 1.0, epsilon, 1e-5, "digest") for epsilon in (1.0, 2.0, 3.0))
    for statement in (first, second, first, third):
        memory.add(statement)
    assert len(memory) == 2
    assert second not in memory
    assert {first, third} == {one for one in (first, second, third) if one in memory}
