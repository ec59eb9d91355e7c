"""The close of a round: once, whatever is killed, lost or asked for twice."""

from typing import Any

import numpy as np
import pytest

from hub.rounds.coordinator import close_open_rounds
from hub.rounds.deadlines import Reminders, tick
from hub.storage import round_stores, stores
from hub.studies import coordinator as studies
from protocol.messages import RoundTask, TaskKind
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import Bench, actions, assert_equal, filled, study_of


def test_an_aggregating_round_of_a_stopped_study_makes_no_version(bench: Bench) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 1.0, 1.0)
    studies.stop(bench.services, bench.study.digest, "researcher")
    assert not bench.close()
    assert [version.number for version in _versions(bench)] == [0]


def test_the_second_close_finds_the_round_closed(bench: Bench) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 1.0, 1.0)
    assert bench.close()
    before = actions(bench)
    assert not bench.close()
    assert actions(bench) == before
    assert [version.number for version in _versions(bench)] == [0, 1]


def test_a_close_killed_before_its_commit_is_asked_for_again_and_counts_once(
    bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin(study_of())
    bench.train_all(0.5, 0.5, 3.0)

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


def test_a_clock_that_is_set_back_does_not_keep_a_close_from_being_asked_for_again() -> None:
    reminders = Reminders()
    assert reminders.ready(("s", 1), 7200.0, 7210.0)
    assert reminders.ready(("s", 1), 7200.0, 10.0)
    assert not reminders.ready(("s", 1), 7200.0, 11.0)


def test_a_lost_blob_fails_the_round_with_its_reason(bench: Bench) -> None:
    bench.begin(study_of())
    bench.train_all(1.0, 2.0, 3.0)
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
