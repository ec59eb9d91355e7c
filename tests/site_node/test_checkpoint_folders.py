"""Checkpoints of a task go when it has ended, and stay while it may go on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes
from site_node.candidate import candidate_folder
from site_node.checkpoint_folders import KEPT_SECONDS, checkpoint_folder, erase_ended_tasks
from site_node.orders import WorkOrder, ended_path, order_path, write_order
from site_node.settings import SitePaths

NOW = 2e9
STUDY, OTHER_STUDY = (digest_of_bytes(name) for name in (b"study", b"other"))


def order_of(number: int, study: str = STUDY, kind: str = "train", task_id: str | None = None) -> WorkOrder:
    return WorkOrder.model_validate(
        {
            "kind": kind,
            "task_id": task_id or f"{kind}-{number}.{study[7:11]}",
            "task_digest": digest_of_bytes(kind.encode()),
            "study": {},
            "study_digest": study,
            "round": number,
        }
    )


@pytest.fixture
def paths(tmp_path: Path) -> SitePaths:
    made = SitePaths(tmp_path)
    made.orders.mkdir()
    return made


def checkpoint_of(paths: SitePaths, order: WorkOrder, at: float = NOW) -> Path:
    folder = checkpoint_folder(paths, order)
    folder.mkdir(parents=True)
    (folder / "round.sealed").write_bytes(b"sealed")
    os.utime(folder, (at, at))
    return folder


def nothing(paths: SitePaths, order: WorkOrder) -> None:
    """The gate holds the order back: the site is paused."""


def ordered(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order)
    write_order(paths, order_of(order.round, kind="evaluate"))
    write_order(paths, order_of(order.round + 1, OTHER_STUDY))


def ordered_with_the_next(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order)
    write_order(paths, order_of(order.round + 1))


def another_study_goes_on(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order_of(order.round + 1, OTHER_STUDY))
    write_order(paths, order_of(order.round + 1, kind="evaluate"))


@pytest.mark.parametrize("where", [nothing, ordered, ordered_with_the_next, another_study_goes_on])
def test_a_task_that_may_go_on_keeps_its_checkpoints(
    paths: SitePaths, where: Callable[[SitePaths, WorkOrder], None]
) -> None:
    order = order_of(3)
    folder = checkpoint_of(paths, order)
    where(paths, order)
    assert erase_ended_tasks(paths, NOW + 3600) == 0
    assert folder.exists()


def handed_over(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order)
    candidate_folder(paths, order.task_id).mkdir(parents=True)


def the_study_has_ended(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order)
    ended_path(paths, order.study_digest).touch()


def superseded(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order_of(order.round + 1))


def given_anew(paths: SitePaths, order: WorkOrder) -> None:
    write_order(paths, order_of(order.round, task_id="another-task-of-the-round"))


@pytest.mark.parametrize("how", [handed_over, the_study_has_ended, superseded, given_anew])
def test_a_task_that_has_ended_keeps_none(paths: SitePaths, how: Callable[[SitePaths, WorkOrder], None]) -> None:
    order = order_of(3)
    folder = checkpoint_of(paths, order)
    how(paths, order)
    assert erase_ended_tasks(paths, NOW) == 1
    assert not folder.parent.exists()
    assert erase_ended_tasks(paths, NOW) == 0


def test_what_nobody_has_asked_for_in_a_week_goes(paths: SitePaths) -> None:
    folder = checkpoint_of(paths, order_of(3))
    assert erase_ended_tasks(paths, NOW + KEPT_SECONDS - 1) == 0
    assert erase_ended_tasks(paths, NOW + KEPT_SECONDS + 1) == 1
    assert not folder.exists()


def test_an_order_that_waits_for_longer_keeps_its_own(paths: SitePaths) -> None:
    order = order_of(3)
    checkpoint_of(paths, order)
    write_order(paths, order)
    assert erase_ended_tasks(paths, NOW + 2 * KEPT_SECONDS) == 0
    order_path(paths, order.task_id).unlink()
    assert erase_ended_tasks(paths, NOW + 2 * KEPT_SECONDS) == 1


def test_of_two_tasks_of_a_study_only_the_one_that_has_ended_goes(paths: SitePaths) -> None:
    ended, going_on = order_of(3), order_of(4)
    first, second = (checkpoint_of(paths, order) for order in (ended, going_on))
    write_order(paths, going_on)
    assert erase_ended_tasks(paths, NOW) == 1
    assert not first.exists()
    assert second.exists()
