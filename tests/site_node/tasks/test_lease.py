"""Leases: one holder at a time, and a stale holder's result is refused."""

import functools
import os
import platform
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from site_node.candidate import Candidate, candidate_folder, publish, write_candidate
from site_node.settings import SitePaths
from site_node.sqlite import connect
from site_node.tasks.lease import EXPIRY_SECONDS, SCHEMA, Leases
from tests.fakes.ordered_site import give_order, make_site

HERE = f"{platform.node()}:{os.getpid()}:"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def two(path: Path) -> tuple[Leases, Leases, Clock]:
    clock = Clock()
    database = path / "jobs.sqlite"
    return Leases(database, HERE + "a", clock), Leases(database, HERE + "b", clock), clock


def test_a_held_lease_is_not_given_twice(tmp_path: Path) -> None:
    first, second, _ = two(tmp_path)
    assert first.acquire("t") is not None
    assert second.acquire("t") is None
    assert not second.is_free("t")


def test_a_heartbeat_keeps_it_and_silence_loses_it(tmp_path: Path) -> None:
    first, second, clock = two(tmp_path)
    lease = first.acquire("t")
    assert lease is not None
    clock.now += EXPIRY_SECONDS - 1
    assert first.beat(lease)
    clock.now += EXPIRY_SECONDS - 1
    assert second.acquire("t") is None
    clock.now += 1
    taken = second.acquire("t")
    assert taken is not None
    assert taken.token == lease.token + 1


def test_a_clock_that_was_set_back_keeps_no_lease_of_a_holder_that_is_gone(tmp_path: Path) -> None:
    first, second, clock = two(tmp_path)
    assert first.acquire("t") is not None
    clock.now -= EXPIRY_SECONDS - 1
    assert second.acquire("t") is None
    clock.now -= 1
    assert second.acquire("t") is not None


def test_a_stale_holder_s_result_is_refused(tmp_path: Path) -> None:
    first, second, clock = two(tmp_path)
    stale = first.acquire("t")
    assert stale is not None
    clock.now += EXPIRY_SECONDS + 1
    fresh = second.acquire("t")
    assert fresh is not None
    published: list[str] = []
    assert not first.beat(stale)
    assert not first.publish(stale, lambda: published.append("stale"))
    assert second.publish(fresh, lambda: published.append("fresh"))
    assert not second.publish(fresh, lambda: published.append("again"))
    assert published == ["fresh"]


def test_a_holder_s_release_does_not_free_the_next_one_s_lease(tmp_path: Path) -> None:
    first, second, clock = two(tmp_path)
    stale = first.acquire("t")
    clock.now += EXPIRY_SECONDS + 1
    assert stale is not None
    assert second.acquire("t") is not None
    first.release(stale, crashed=True)
    assert not first.is_free("t")


def test_a_failed_publication_keeps_the_lease(tmp_path: Path) -> None:
    first, _, _ = two(tmp_path)
    lease = first.acquire("t")
    assert lease is not None

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        first.publish(lease, fail)
    assert first.publish(lease, lambda: None)


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    clock = Clock()
    dead = Leases(tmp_path / "jobs.sqlite", f"{platform.node()}:{child}:x", clock)
    assert dead.acquire("t") is not None
    assert Leases(tmp_path / "jobs.sqlite", HERE + "b", clock).acquire("t") is not None


def test_the_leases_need_no_memory_that_only_processes_of_one_machine_share(tmp_path: Path) -> None:
    first, second, _ = two(tmp_path)
    lease = first.acquire("t")
    assert lease is not None
    assert second.acquire("t") is None
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.sqlite"]  # no write-ahead log and no index of one


def test_leases_of_an_earlier_version_are_taken_over(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "jobs.sqlite", SCHEMA)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        database.execute("INSERT INTO leases VALUES ('t', 4, 'elsewhere:1:x', 1000.0, 1, 0)")
    first, _, _ = two(tmp_path)
    assert not first.is_free("t")
    assert not (tmp_path / "jobs.sqlite-wal").exists()


def test_where_locks_do_not_hold_the_first_candidate_stays(tmp_path: Path) -> None:
    settings = make_site(tmp_path)
    order = give_order(settings)
    for number, payload in enumerate((b"first", b"second")):  # each with leases that do not know of the other's
        leases, staged = Leases(tmp_path / f"{number}.sqlite", HERE + str(number), Clock()), tmp_path / f"{number}"
        lease = leases.acquire("task-1")
        assert lease is not None
        paths = SitePaths(settings.paths.root, staged)
        paths.candidates.mkdir(parents=True)
        write_candidate(
            paths,
            Candidate(task_id="task-1", task_digest=order.task_digest, kind="update", steps=["difference"]),
            payload,
        )
        made, target = candidate_folder(paths, "task-1"), candidate_folder(settings.paths, "task-1")
        assert leases.publish(lease, functools.partial(publish, made, target))
    (payload_file,) = (path for path in target.iterdir() if path.name != "candidate.json")
    assert payload_file.read_bytes() == b"first"
