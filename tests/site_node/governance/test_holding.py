"""Drained, or outside its hours, a site begins nothing, finishes what was begun, and lets it leave."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from protocol.messages import Activity, Progress, RoundTask, TaskKind, TaskRefusal, UpdateNotice
from site_node.cli import app
from site_node.doctor.registration import is_running
from site_node.governance import holding
from site_node.governance.records import open_records, set_paused, task_record
from site_node.orders import cohort_task_id, read_order
from site_node.training_hours import TrainHours
from tests.fakes.gated_site import DAY, GatedSite, study_of
from tests.fakes.waiting import until

NIGHTS = TrainHours(hours="20:00-06:00", time_zone="UTC")
MIDNIGHT = DAY + 86400.0 - DAY % 86400.0
EVENING, NOON = MIDNIGHT + 21 * 3600.0, MIDNIGHT + 36 * 3600.0


def state_of(site: GatedSite, task: RoundTask) -> str:
    record = task_record(open_records(site.paths), task.task_id)
    assert record is not None
    return record.state


def updates(site: GatedSite) -> list[UpdateNotice]:
    return [message for message in site.everything_sent() if isinstance(message, UpdateNotice)]


def activities(site: GatedSite) -> list[Activity]:
    return [message.activity for message in site.everything_sent() if isinstance(message, Progress)]


@pytest.fixture
def begun(site: GatedSite) -> RoundTask:
    """A task that was ordered from the worker."""
    study = study_of()
    site.join(study)
    return site.give(site.task(study))


def test_what_was_begun_ends_and_leaves_and_nothing_else_begins(site: GatedSite, begun: RoundTask) -> None:
    database = open_records(site.paths)
    holding.drain(database)
    later = site.give(site.task(study_of(), number=1, kind=TaskKind.EVALUATE))
    assert read_order(site.paths, begun.task_id) is not None
    assert (state_of(site, later), read_order(site.paths, later.task_id)) == ("waiting", None)
    site.hand_over(begun)
    site.sweep()
    assert [update.round for update in updates(site)] == [1]
    assert holding.remaining(database).tasks == 0
    assert holding.remaining(database).messages > 0
    site.receive_all()
    site.sweep()
    site.receive_all()
    assert not holding.remaining(database)
    holding.resume(database)
    site.sweep()
    assert (state_of(site, later), read_order(site.paths, later.task_id) is not None) == ("accepted", True)


def test_a_drained_site_says_that_it_is_paused_and_later_that_it_is_not(site: GatedSite, begun: RoundTask) -> None:
    holding.drain(open_records(site.paths))
    site.hand_over(begun)
    site.sweep()
    site.sweep()
    assert activities(site)[-1:] == [Activity.PAUSED]
    holding.resume(open_records(site.paths))
    site.sweep()
    assert activities(site)[-2:] == [Activity.PAUSED, Activity.IDLE]


def test_a_held_task_spends_nothing_and_is_none_that_was_given(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    holding.drain(open_records(site.paths))
    task = site.give(site.task(study))
    database = open_records(site.paths)
    assert database.execute("SELECT COUNT(*) FROM inputs").fetchone()[0] == 0
    assert (site.verdict(task.task_id) or {})["verdict"] == "wait"


def test_what_must_be_refused_is_refused_in_a_drained_site_too(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    holding.drain(open_records(site.paths))
    site.give(site.task(study, sequence=99))
    assert isinstance(site.sent()[-1], TaskRefusal)


def test_a_withdrawal_counts_in_a_drained_site_too(site: GatedSite, begun: RoundTask) -> None:
    holding.drain(open_records(site.paths))
    site.decide(study_of(), "withdrawn")
    site.sweep()
    site.hand_over(begun)
    site.sweep()
    assert updates(site) == []


def test_a_drained_site_counts_no_cohort_until_it_goes_on(site: GatedSite) -> None:
    study = study_of()
    holding.drain(open_records(site.paths))
    site.propose(study)
    site.sweep()
    assert read_order(site.paths, cohort_task_id(study.digest)) is None
    holding.resume(open_records(site.paths))
    site.sweep()
    assert read_order(site.paths, cohort_task_id(study.digest)) is not None


def test_draining_outlives_the_gate(site: GatedSite, begun: RoundTask) -> None:
    holding.drain(open_records(site.paths))
    site.gate.close()
    site.start()
    later = site.give(site.task(study_of(), number=1, kind=TaskKind.EVALUATE))
    assert state_of(site, later) == "waiting"


def in_hours(site: GatedSite, now: float) -> None:
    site.gate.close()
    site.settings, site.now = replace(site.settings, train_hours=NIGHTS), now
    site.start()


def test_a_training_waits_for_its_hours_and_begins_in_them(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    in_hours(site, NOON)
    task = site.give(site.task(study))
    assert (state_of(site, task), read_order(site.paths, task.task_id)) == ("waiting", None)
    assert activities(site)[-1:] == [Activity.WAITING]
    site.now = NOON + 8 * 3600.0
    site.sweep()
    assert state_of(site, task) == "accepted"
    assert read_order(site.paths, task.task_id) is not None


def test_evaluation_does_not_wait_for_the_hours(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    in_hours(site, NOON)
    task = site.give(site.task(study, number=1, kind=TaskKind.EVALUATE))
    assert state_of(site, task) == "accepted"


def test_what_was_begun_in_the_night_is_finished_by_day(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    in_hours(site, EVENING)
    task = site.give(site.task(study))
    site.now = NOON
    site.sweep()
    assert read_order(site.paths, task.task_id) is not None
    site.hand_over(task)
    site.sweep()
    assert [update.round for update in updates(site)] == [1]


def drained(site: GatedSite, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["drain", str(site.paths.root), *words])
    return result.exit_code, result.output


def test_the_command_waits_until_all_has_left(
    site: GatedSite, begun: RoundTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_node.holding_commands.LOOK_SECONDS", 0.01)
    left: list[holding.Remaining] = []

    def work(database: object) -> holding.Remaining:
        """Do the neighbours' part between two looks of the command."""
        found = remaining(database)  # type: ignore[arg-type]
        left.append(found)
        if len(left) == 1:
            site.hand_over(begun)
        site.sweep()
        site.receive_all()
        return found

    remaining = holding.remaining
    monkeypatch.setattr("site_node.governance.holding.remaining", work)
    with site.gate._alone():
        status, output = drained(site)
    assert (status, "Idle" in output) == (0, True)
    assert left[0].tasks == 1
    assert not left[-1]


def test_the_command_says_what_is_left_when_the_time_runs_out(site: GatedSite, begun: RoundTask) -> None:
    with site.gate._alone():
        status, output = drained(site, "--timeout-minutes", "0")
    assert status == 1
    assert "1 task" in output
    assert holding.is_draining(open_records(site.paths))


def test_the_command_does_not_wait_for_a_gate_that_is_not_there(site: GatedSite, begun: RoundTask) -> None:
    status, output = drained(site)
    assert (status, "No gate is running" in output) == (1, True)
    assert drained(site, "--no-wait")[0] == 0


def test_draining_a_paused_site_lets_what_was_begun_end(site: GatedSite, begun: RoundTask) -> None:
    set_paused(open_records(site.paths), True)
    site.sweep()
    assert read_order(site.paths, begun.task_id) is None
    holding.drain(open_records(site.paths))
    site.sweep()
    assert read_order(site.paths, begun.task_id) is not None


def test_status_tells_draining_and_hours(site: GatedSite) -> None:
    holding.drain(open_records(site.paths))
    bounds = [datetime.now(UTC) + timedelta(hours=hours) for hours in (2, 3)]
    text = "-".join(moment.strftime("%H:%M") for moment in bounds)
    with site.paths.configuration.open("a", encoding="utf-8") as file:
        file.write(f'train_hours: {{hours: "{text}", time_zone: UTC}}\n')
    output = CliRunner().invoke(app, ["status", str(site.paths.root)]).output
    assert "draining" in output
    assert f"outside the hours {text}" in output
    found = json.loads(CliRunner().invoke(app, ["status", str(site.paths.root), "--json"]).output)
    assert (found["draining"], found["train_hours"]["open"]) == (True, False)


def test_a_gate_in_a_process_of_its_own_is_drained_and_goes_on(site: GatedSite, begun: RoundTask) -> None:
    site.receive_all()
    site.gate.close()
    command = [sys.executable, "-m", "site_node.cli", "gate", str(site.paths.root)]
    gate = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: is_running(site.paths.gate / "lock"))
        assert drained(site, "--timeout-minutes", "0")[0] == 1
        site.hand_over(begun)
        until(lambda: updates(site) != [])
        database = open_records(site.paths)
        until(lambda: acknowledged(site) and not holding.remaining(database))
        assert drained(site)[0] == 0
        later = site.task(study_of(), number=1, kind=TaskKind.EVALUATE)
        site.post(later)
        until(lambda: (site.verdict(later.task_id) or {}).get("verdict") == "wait")
        assert CliRunner().invoke(app, ["resume", str(site.paths.root)]).exit_code == 0
        until(lambda: (site.verdict(later.task_id) or {}).get("verdict") == "accept")
    finally:
        gate.terminate()
        gate.wait(20)


def acknowledged(site: GatedSite) -> bool:
    site.look()
    site.receive_all()
    return True


def test_holding_is_a_table() -> None:
    hold = {
        (paused, draining, may): holding.hold_on(TaskKind.TRAIN, paused=paused, draining=draining, may_train_now=may)
        for paused in (True, False)
        for draining in (True, False)
        for may in (True, False)
    }
    assert {hold[key] for key in hold if key[0]} == {"paused"}
    assert {hold[key] for key in hold if not key[0] and key[1]} == {"draining"}
    assert (hold[False, False, False], hold[False, False, True]) == ("outside-hours", None)
