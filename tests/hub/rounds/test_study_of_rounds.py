"""A study from its first task to its last version: who is asked, who is missing, what is kept."""

import numpy as np
import pytest

from hub.audit.verify import read_sqlite, verify_entries
from hub.registry.lineage import read_lineage
from hub.rounds.deadlines import tick
from hub.storage import round_stores, stores
from hub.studies import coordinator as studies
from protocol.messages import Reason, StudyClosed, TaskCancelled, TaskKind
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import ZERO, Bench, actions, assert_equal, filled, spent_after, study_of

HOUR = 3600.0


def test_two_rounds_end_with_a_completed_study(bench: Bench) -> None:
    bench.begin(study_of())
    assert_equal(bench.weights(0), ZERO)

    bench.train_all(0.5, 0.5, 3.0)  # patients 10, 30, 60: (5 + 15 + 180) / 100 = 2
    assert bench.round()["state"] == "aggregating"
    assert bench.close()
    assert_equal(bench.weights(1), filled(2.0))
    assert bench.round()["state"] == "evaluating"

    bench.report_all()
    assert bench.round(1)["state"] == "complete"
    assert bench.round(2)["state"] == "training"
    bench.train_all(5.0, 0.0, 0.0)
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
    bench.train_all(1.0, 2.0, 3.0)
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
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    assert {task.sequence for task in bench.tasks(TaskKind.TRAIN)} == {2}


def test_the_lineage_names_parents_participants_and_privacy(bench: Bench) -> None:
    bench.begin(study_of(privacy={"epsilon": 8.0, "delta": 1e-4}, participants={"training_patients": 100}))
    bench.train_all(1.0, 1.0, 1.0)
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
    bench.train_all(1.0, 1.0)
    bench.close()
    assert [task.site for task in bench.tasks(TaskKind.EVALUATE)] == ["anna", "bela", "clara"]


def test_with_averaging_the_mean_is_released_and_training_goes_on_from_the_weights(bench: Bench) -> None:
    bench.begin(study_of(rounds=3, strategy={"averaging": 0.5, "weighting": "equal"}))
    for value in (1.0, 1.0, 1.0):
        bench.train_all(value, value, value)
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


def test_a_study_goes_on_without_a_hospital_while_its_quorum_of_the_minimum_is_there(bench: Bench) -> None:
    bench.begin(study_of(participants={"minimum_sites": 3, "quorum": 0.5}))
    anna, bela, _ = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.update(bela, filled(1.0))
    hospital = bench.hospital("clara")
    bench.say(hospital, hospital.approval(bench.study.digest, "withdrawn"))
    bench.close()
    bench.report_all()
    assert bench.view()["state"] == "running"
    assert [task.site for task in bench.tasks(TaskKind.TRAIN)] == ["anna", "bela"]


def test_fewer_approvals_than_the_quorum_of_the_minimum_end_the_study_before_the_next_round(bench: Bench) -> None:
    bench.begin(study_of(participants={"minimum_sites": 3, "quorum": 0.5}))
    anna, bela, _ = bench.tasks(TaskKind.TRAIN)
    bench.update(anna, filled(1.0))
    bench.update(bela, filled(1.0))
    for name in ("bela", "clara"):
        hospital = bench.hospital(name)
        bench.say(hospital, hospital.approval(bench.study.digest, "withdrawn"))
    bench.close()
    bench.report_all()
    assert bench.view()["state"] == "failed"
    assert "needs 2" in bench.view()["reason"]


def test_a_stopped_study_cancels_all_that_is_open(bench: Bench) -> None:
    bench.begin(study_of())
    studies.stop(bench.services, bench.study.digest, "researcher")
    assert bench.tasks(TaskKind.TRAIN) == []
    assert bench.round()["state"] == "failed"
    assert bench.view()["state"] == "stopped"


def test_every_change_of_state_is_in_a_whole_audit_chain(bench: Bench) -> None:
    bench.begin(study_of(rounds=1))
    bench.train_all(1.0, 1.0, 1.0)
    bench.close()
    bench.report_all()
    found = actions(bench)
    for action in ("round.training", "task.opened", "update.accepted", "round.aggregating", "version.registered"):
        assert action in found
    assert found.count("update.accepted") == 4
    assert found[-1] == "study.completed"
    assert verify_chain(bench)


def test_few_training_patients_of_a_hospital_are_hidden_in_its_rounds(bench: Bench) -> None:
    bench.begin(study_of(), patients=(4, 5, 60))
    assert [site["patients"] for site in bench.round()["sites"]] == [None, 5, 60]


def test_the_hub_tells_who_is_late_and_what_a_site_spent(bench: Bench) -> None:
    bench.begin(study_of(privacy={"epsilon": 8.0, "delta": 1e-4}, participants={"training_patients": 100}))
    bench.update(bench.tasks(TaskKind.TRAIN)[0], filled(1.0))
    anna, bela, _ = bench.round()["sites"]
    assert (anna["train_state"], anna["patients"]) == ("accepted", 10)
    assert anna["epsilon"] == spent_after(bench.study, 1).epsilon
    assert anna["norm"] == pytest.approx(np.sqrt(5))
    assert anna["bytes_up"] > 0
    assert (bela["train_state"], bela["epsilon"]) == ("delivered", None)


def verify_chain(bench: Bench) -> bool:
    return verify_entries(read_sqlite(bench.services.settings.dir / "hub.sqlite")).ok
