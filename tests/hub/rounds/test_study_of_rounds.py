"""A study from its first task to its last version, and all that may happen on the way."""

from typing import Any

import numpy as np
import pytest

from hub.audit.verify import read_sqlite, verify_entries
from hub.registry.lineage import read_lineage
from hub.rounds.coordinator import close_open_rounds
from hub.rounds.deadlines import Reminders, tick
from hub.rounds.views import version_metrics
from hub.storage import audit_stores, round_stores, stores
from hub.studies import coordinator as studies
from protocol.messages import Reason, RoundTask, StudyClosed, TaskCancelled, TaskKind
from protocol.tensors import Weights
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import ZERO, Bench, filled, spent_after, study_of

HOUR = 3600.0


def train_all(bench: Bench, *values: float) -> None:
    for task, value in zip(bench.tasks(TaskKind.TRAIN), values, strict=True):
        bench.update(task, filled(value))


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def actions(bench: Bench) -> list[str]:
    with bench.services.reading() as session:
        entries = audit_stores.entries(session, 0, 1000)
    return [str(entry.entry.split(b'"action":"')[1].split(b'"')[0].decode()) for entry in entries]


def test_two_rounds_end_with_a_completed_study(bench: Bench) -> None:
    bench.begin(study_of())
    assert_equal(bench.weights(0), ZERO)

    train_all(bench, 0.5, 0.5, 3.0)  # patients 10, 30, 60: (5 + 15 + 180) / 100 = 2
    assert bench.round()["state"] == "aggregating"
    assert bench.close()
    assert_equal(bench.weights(1), filled(2.0))
    assert bench.round()["state"] == "evaluating"

    bench.report_all()
    assert bench.round(1)["state"] == "complete"
    assert bench.round(2)["state"] == "training"
    train_all(bench, 5.0, 0.0, 0.0)
    bench.close()
    assert_equal(bench.weights(2), filled(2.5))
    bench.report_all()

    view = bench.view()
    assert (view["state"], view["final_version"]) == ("completed", 2)
    assert [r["state"] for r in bench.rounds()] == ["complete"] * 3
    for hospital in bench.hospitals:
        assert [closed.state for closed in bench.mail(hospital, StudyClosed)] == ["completed"]


def test_equal_weighting_ignores_patients(bench: Bench) -> None:
    bench.begin(study_of(strategy={"weighting": "equal"}))
    train_all(bench, 1.0, 2.0, 3.0)
    bench.close()
    assert_equal(bench.weights(1), filled(2.0))


def test_tasks_are_the_same_bytes_whenever_they_are_made(bench: Bench) -> None:
    bench.begin(study_of())
    first, *_ = bench.tasks(TaskKind.TRAIN)
    assert first.task_id == "tiny.r1.anna.train"
    assert (first.round, first.sequence, first.site) == (1, 1, "anna")
    assert first.base is not None
    assert first.base.number == 0
    assert "800000000" not in first.canonical_bytes().decode()


def test_sequence_counts_the_tasks_of_a_kind(bench: Bench) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    assert {task.sequence for task in bench.tasks(TaskKind.TRAIN)} == {2}


def test_the_lineage_names_parents_participants_and_privacy(bench: Bench) -> None:
    bench.begin(study_of(privacy={"epsilon": 8.0, "delta": 1e-4}, participants={"training_patients": 100}))
    train_all(bench, 1.0, 1.0, 1.0)
    bench.close()
    with bench.services.reading() as session:
        zero, one = stores.versions(session, bench.study.digest)
        updates = round_stores.updates_of_round(session, bench.study.digest, 1)
    lineage = read_lineage(one.lineage)
    assert lineage["parents"] == [zero.weights_digest]
    assert [(p["site"], p["weight"]) for p in lineage["participants"]] == [("anna", 10), ("bela", 30), ("clara", 60)]
    assert lineage["privacy"] == {"unit": "patient", "epsilon": spent_after(bench.study, 1).epsilon, "delta": 1e-4}
    assert {update.counted_in for update in updates} == {1}


def test_a_site_without_training_patients_only_evaluates(bench: Bench) -> None:
    bench.begin(study_of(), patients=(10, 30, 0))
    assert [task.site for task in bench.tasks(TaskKind.TRAIN)] == ["anna", "bela"]
    train_all(bench, 1.0, 1.0)
    bench.close()
    assert [task.site for task in bench.tasks(TaskKind.EVALUATE)] == ["anna", "bela", "clara"]


def test_versions_are_judged_as_often_as_the_study_says_and_the_last_always(bench: Bench) -> None:
    bench.begin(study_of(rounds=3, evaluation={"every": 2}))
    judged = []
    for number in (1, 2, 3):
        train_all(bench, 1.0, 1.0, 1.0)
        bench.close()
        if bench.tasks(TaskKind.EVALUATE):
            judged.append(number)
            bench.report_all()
    assert judged == [2, 3]
    assert bench.view()["state"] == "completed"


def test_version_zero_is_judged_before_the_first_round_opens(bench: Bench) -> None:
    bench.start(study_of(), patients=(10, 30, 0))
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, ZERO)
    asked = bench.tasks(TaskKind.EVALUATE)
    assert [(t.site, t.round, t.sequence, t.base and t.base.number) for t in asked] == [
        (name, 0, 1, 0) for name in ("anna", "bela", "clara")
    ]
    assert [r["state"] for r in bench.rounds()] == ["evaluating"]
    bench.update(task, ZERO)  # sent again: the same receipt, nothing asked twice
    assert bench.tasks(TaskKind.EVALUATE) == asked
    bench.report_all()
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]
    assert bench.round(0)["metrics"]["auc"] == pytest.approx(8 / 9)
    with bench.services.reading() as session:
        assert version_metrics(session, bench.study.digest, 0) == bench.round(0)["metrics"]


def test_judging_version_zero_ends_at_its_deadline(bench: Bench, clock: Clock) -> None:
    bench.start(study_of())
    clock.now += HOUR / 2
    bench.update(bench.tasks(TaskKind.INITIALISE)[0], ZERO)
    clock.now += HOUR / 2
    assert tick(bench.services) == 0
    clock.now += HOUR / 2
    assert tick(bench.services) == 1
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]
    assert bench.tasks(TaskKind.EVALUATE) == []


def test_version_zero_goes_unjudged_where_nobody_evaluates(bench: Bench) -> None:
    bench.start(study_of(), evaluates=False)
    bench.update(bench.tasks(TaskKind.INITIALISE)[0], ZERO)
    assert [r["state"] for r in bench.rounds()] == ["complete", "training"]


@pytest.mark.parametrize(("rounds", "every"), [(1, 1), (3, 1), (3, 2), (4, 2), (2, 5)])
def test_the_planned_evaluations_are_those_asked_for(bench: Bench, rounds: int, every: int) -> None:
    evaluation = {"every": every, "at_most": (rounds - 1) // every + 2}
    bench.begin(study_of(rounds=rounds, evaluation=evaluation))
    for _ in range(rounds):
        train_all(bench, 1.0, 1.0, 1.0)
        bench.close()
        bench.report_all()
    tasks = [t for t in bench.mail(bench.hospital("anna"), RoundTask) if t.kind is TaskKind.EVALUATE]
    assert tasks[-1].sequence == len(tasks) == evaluation["at_most"]


def test_the_final_version_may_be_the_best_on_validation(bench: Bench) -> None:
    bench.begin(study_of(evaluation={"final_version": "best-validation"}))
    for positive, negative in (([0.9, 0.8], [0.1, 0.2]), ([0.9, 0.1], [0.2, 0.8])):
        train_all(bench, 1.0, 1.0, 1.0)
        bench.close()
        for task in bench.tasks(TaskKind.EVALUATE):
            bench.report(task, positive, negative)
    assert bench.view()["final_version"] == 1


def test_with_averaging_the_mean_is_released_and_training_goes_on_from_the_weights(bench: Bench) -> None:
    bench.begin(study_of(rounds=3, strategy={"averaging": 0.5, "weighting": "equal"}))
    for value in (1.0, 1.0, 1.0):
        train_all(bench, value, value, value)
        bench.close()
        bench.report_all()
    # Weights 1, 2, 3. Mean of 1..2: (0.5 x 1 + 2) / 1.5 = 5/3; of 1..3: (0.25 + 1 + 3) / 1.75 = 17/7.
    assert_equal(bench.weights(1), filled(1.0))
    np.testing.assert_allclose(bench.weights(2)["bias"], 5 / 3, rtol=1e-7)
    np.testing.assert_allclose(bench.weights(3)["bias"], 17 / 7, rtol=1e-7)


def test_a_round_closes_at_its_quorum_when_a_site_refuses(bench: Bench) -> None:
    bench.begin(study_of(), patients=(10, 30, 60))
    anna, bela, clara = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    assert bench.refuse(bela, Reason.OUT_OF_MEMORY).accepted
    assert bench.round()["state"] == "training"
    bench.update(clara, filled(4.5))
    bench.close()
    assert_equal(bench.weights(1), filled(4.0))  # (10 + 270) / 70
    row = bench.round(1)["sites"][1]
    assert (row["site"], row["train_state"], row["reason"]) == ("bela", "refused", "out-of-memory")


def test_all_answered_below_the_quorum_fails_the_round_and_the_study(bench: Bench) -> None:
    bench.begin(study_of())
    anna, bela, clara = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.refuse(bela)
    bench.refuse(clara)
    assert bench.round()["state"] == "failed"
    assert bench.view()["state"] == "failed"
    assert "quorum" in bench.view()["reason"]


def test_a_silent_site_is_left_behind_at_the_deadline(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of())
    anna, bela, clara = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.update(bela, filled(1.0))
    assert tick(bench.services) == 0
    clock.now += HOUR
    assert tick(bench.services) == 1
    assert bench.round()["state"] == "aggregating"
    assert [m.task_id for m in bench.mail(bench.hospital("clara"), TaskCancelled)] == [clara.task_id]
    late = bench.receipt(bench.update(clara, filled(9.0)))
    assert not late.accepted
    assert "no longer open" in late.reason
    bench.close()
    assert_equal(bench.weights(1), filled(1.0))


def test_below_the_quorum_a_round_stays_open_after_its_deadline_and_says_so(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of())
    anna, bela, _ = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    clock.now += 2 * HOUR
    assert tick(bench.services) == 0
    assert bench.round()["state"] == "training"
    assert bench.round()["reason"].startswith("Overdue: 1 of the 2")
    bench.update(bela, filled(1.0))
    assert bench.round()["state"] == "aggregating"


def test_evaluation_ends_at_its_own_deadline(bench: Bench, clock: Clock) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 1.0, 1.0)
    bench.close()
    bench.report(bench.tasks(TaskKind.EVALUATE)[0], [0.9] * 5, [0.1] * 5)
    clock.now += HOUR
    tick(bench.services)
    assert bench.round(1)["state"] == "complete"
    assert bench.round(1)["metrics"]["auc"] == 1.0
    assert bench.round(2)["state"] == "training"


def test_version_zero_is_asked_of_the_next_site_after_a_refusal(bench: Bench) -> None:
    bench.start(study_of())
    (first,) = bench.tasks(TaskKind.INITIALISE)
    bench.refuse(first)
    (second,) = bench.tasks(TaskKind.INITIALISE)
    assert (first.site, second.site) == ("anna", "bela")
    bench.update(second, filled(0.5))
    assert bench.round()["state"] == "evaluating"
    assert_equal(bench.weights(0), filled(0.5))


def test_version_zero_is_asked_of_the_next_site_after_silence(bench: Bench, clock: Clock) -> None:
    bench.start(study_of())
    clock.now += HOUR
    tick(bench.services)
    assert [task.site for task in bench.tasks(TaskKind.INITIALISE)] == ["bela"]


def test_a_study_fails_if_no_site_builds_version_zero(bench: Bench) -> None:
    bench.start(study_of())
    for _ in bench.hospitals:
        bench.refuse(bench.tasks(TaskKind.INITIALISE)[0])
    assert bench.view()["state"] == "failed"


def test_a_withdrawn_approval_cancels_the_open_task_and_settles_the_round(bench: Bench) -> None:
    bench.begin(study_of())
    anna, bela, clara = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.update(bela, filled(1.0))
    hospital = bench.hospital("clara")
    bench.say(hospital, hospital.approval(bench.study.digest, "withdrawn"))
    assert [m.task_id for m in bench.mail(hospital, TaskCancelled)] == [clara.task_id]
    assert bench.round()["state"] == "aggregating"
    bench.close()
    bench.report_all()
    assert [task.site for task in bench.tasks(TaskKind.TRAIN)] == ["anna", "bela"]


def test_fewer_approvals_than_the_minimum_end_the_study_before_the_next_round(bench: Bench) -> None:
    bench.begin(study_of(participants={"minimum_sites": 3}))
    anna, bela, _ = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.update(bela, filled(1.0))
    hospital = bench.hospital("clara")
    bench.say(hospital, hospital.approval(bench.study.digest, "withdrawn"))
    bench.close()
    bench.report_all()
    assert bench.view()["state"] == "failed"
    assert "needs 3" in bench.view()["reason"]


def test_a_stopped_study_cancels_all_that_is_open(bench: Bench) -> None:
    bench.begin(study_of())
    studies.stop(bench.services, bench.study.digest, "researcher")
    assert bench.tasks(TaskKind.TRAIN) == []
    assert bench.round()["state"] == "failed"
    assert bench.view()["state"] == "stopped"


def test_an_aggregating_round_of_a_stopped_study_makes_no_version(bench: Bench) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 1.0, 1.0)
    studies.stop(bench.services, bench.study.digest, "researcher")
    assert not bench.close()
    assert [version.number for version in _versions(bench)] == [0]


def test_the_second_close_finds_the_round_closed(bench: Bench) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 1.0, 1.0)
    assert bench.close()
    before = actions(bench)
    assert not bench.close()
    assert actions(bench) == before
    assert [version.number for version in _versions(bench)] == [0, 1]


def test_a_close_killed_before_its_commit_is_asked_for_again_and_counts_once(
    bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin(study_of())
    train_all(bench, 0.5, 0.5, 3.0)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hub.rounds.committing._commit", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.close()
    assert bench.round()["state"] == "aggregating"

    reminders, asked = Reminders(), len(bench.queue.items)
    assert tick(bench.services, reminders) == 0
    clock.now += 11
    assert tick(bench.services, reminders) == 1
    assert tick(bench.services, reminders) == 0
    assert len(bench.queue.items) == asked + 1
    assert bench.close()
    assert_equal(bench.weights(1), filled(2.0))


def test_reminders_come_at_growing_intervals() -> None:
    reminders = Reminders()
    times = [t for t in range(200) if reminders.ready(("s", 1), 0.0, float(t))]
    assert times == [10, 30, 70, 150]


def test_a_lost_blob_fails_the_round_with_its_reason(bench: Bench) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 2.0, 3.0)
    with bench.services.reading() as session:
        update = round_stores.updates_of_round(session, bench.study.digest, 1)[0]
    bench.services.blobs.path(update.blob).unlink()
    assert not bench.close()
    assert bench.round()["state"] == "failed"
    assert "missing" in bench.view()["reason"]


def test_the_order_of_updates_does_not_change_a_bit(bench: Bench) -> None:
    bench.begin(study_of(privacy={"epsilon": None}))
    values = {"anna": 0.1, "bela": 1e-3, "clara": 3.3}
    for task in reversed(bench.tasks(TaskKind.TRAIN)):
        bench.update(task, filled(values[task.site]))
    bench.close()
    anna, bela, clara = (float(np.float32(value)) for value in values.values())
    assert_equal(bench.weights(1), filled((anna * 10 + bela * 30 + clara * 60) / 100))


def test_every_change_of_state_is_in_a_whole_audit_chain(bench: Bench) -> None:
    bench.begin(study_of(rounds=1))
    train_all(bench, 1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    found = actions(bench)
    for action in ("round.training", "task.opened", "update.accepted", "round.aggregating", "version.registered"):
        assert action in found
    assert found.count("update.accepted") == 4
    assert found[-1] == "study.completed"
    assert verify_chain(bench)


def test_metrics_are_pooled_from_histograms_and_small_counts_hidden(bench: Bench) -> None:
    bench.begin(study_of())
    train_all(bench, 1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    view = bench.round(1)
    assert view["metrics"]["patients"] == 18
    assert view["metrics"]["positives"] == 9
    assert view["metrics"]["privacy"] == "held-out patients: no DP"
    assert view["metrics"]["by_split"]["validation"]["auc"] == view["metrics"]["auc"]
    site = view["sites"][0]["metrics"]
    assert (site["patients"], site["positives"], site["auc"]) == (6, None, None)
    # Of 3 x 3 pairs of a site 8 are ordered rightly (0.4 stands below 0.6), and all sites have the same scores.
    assert view["metrics"]["auc"] == pytest.approx(8 / 9)


def test_the_hub_tells_who_is_late_and_what_a_site_spent(bench: Bench) -> None:
    bench.begin(study_of(privacy={"epsilon": 8.0, "delta": 1e-4}, participants={"training_patients": 100}))
    bench.update(bench.tasks(TaskKind.TRAIN)[0], filled(1.0))
    anna, bela, _ = bench.round()["sites"]
    assert (anna["train_state"], anna["patients"]) == ("accepted", 10)
    assert anna["epsilon"] == spent_after(bench.study, 1).epsilon
    assert anna["norm"] == pytest.approx(np.sqrt(5))
    assert anna["bytes_up"] > 0
    assert (bela["train_state"], bela["epsilon"]) == ("delivered", None)


def test_open_rounds_can_be_closed_twice(bench: Bench) -> None:
    bench.begin(study_of())
    for _ in range(2):
        with bench.services.transaction() as session:
            close_open_rounds(session, bench.services, stores.study(session, bench.study.digest), "Stopped.")
    assert bench.round()["state"] == "failed"
    assert bench.round()["reason"] == "Stopped."
    assert all(isinstance(task, RoundTask) for task in bench.mail(bench.hospitals[0], RoundTask))


def _versions(bench: Bench) -> list[Any]:
    with bench.services.reading() as session:
        return list(stores.versions(session, bench.study.digest))


def verify_chain(bench: Bench) -> bool:
    return verify_entries(read_sqlite(bench.services.settings.dir / "hub.sqlite")).ok
