"""Digests that are not computed twice: known for the very bytes that were digested, and for no others."""

import os
from pathlib import Path

import pytest

from protocol import keeping as module
from protocol.digest import digest_of_bytes
from protocol.keeping import BEGUN_BYTES, LASTING, MOST_KNOWN, Keeping, in_one_process

BYTES = b"eight b."
DIGEST = digest_of_bytes(BYTES)


def written(path: Path, data: bytes = BYTES) -> Path:
    path.write_bytes(data)
    return path


def test_a_noted_file_is_known_under_every_name_it_has(tmp_path: Path) -> None:
    keeping, file = in_one_process(), written(tmp_path / "a")
    keeping.note(file, DIGEST)
    assert keeping.linked(file, tmp_path / "b", DIGEST)
    file.replace(tmp_path / "c")
    assert keeping.knows(tmp_path / "b", DIGEST)
    assert keeping.knows(tmp_path / "c", DIGEST)
    assert not keeping.knows(tmp_path / "a", DIGEST)


def test_a_file_that_was_written_to_afterwards_is_not_known(tmp_path: Path) -> None:
    keeping, file = in_one_process(), written(tmp_path / "a")
    keeping.note(file, DIGEST)
    with file.open("r+b") as sink:
        sink.write(b"E")
    assert file.stat().st_size == len(BYTES)
    assert not keeping.knows(file, DIGEST)


def test_another_file_in_its_place_is_not_known_even_if_it_gets_its_inode(tmp_path: Path) -> None:
    keeping, file = in_one_process(), tmp_path / "a"
    for _ in range(200):
        keeping.note(written(file), DIGEST)
        file.unlink()
        assert not keeping.knows(written(file, b"another."), DIGEST)
        file.unlink()


def test_only_the_digest_that_was_found_is_known(tmp_path: Path) -> None:
    keeping, file = in_one_process(), written(tmp_path / "a")
    keeping.note(file, DIGEST)
    assert not keeping.knows(file, digest_of_bytes(b"other"))
    assert not keeping.linked(file, tmp_path / "b", digest_of_bytes(b"other"))
    assert not (tmp_path / "b").exists()


def test_a_link_to_a_known_file_is_not_followed(tmp_path: Path) -> None:
    keeping, file = in_one_process(), written(tmp_path / "a")
    keeping.note(file, DIGEST)
    (tmp_path / "b").symlink_to(file)
    assert not keeping.knows(tmp_path / "b", DIGEST)


def test_a_name_that_is_taken_is_left(tmp_path: Path) -> None:
    keeping, file, taken = in_one_process(), written(tmp_path / "a"), written(tmp_path / "b", b"mine")
    keeping.note(file, DIGEST)
    assert not keeping.linked(file, taken, DIGEST)
    assert taken.read_bytes() == b"mine"


def test_hub_and_hospitals_know_nothing_and_sync(tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    before = file.stat().st_mtime_ns
    LASTING.note(file, DIGEST)
    assert LASTING.synced
    assert not LASTING.knows(file, DIGEST)
    assert file.stat().st_mtime_ns == before


def test_the_oldest_is_forgotten_and_that_costs_a_digest_only(tmp_path: Path) -> None:
    keeping, first, last = in_one_process(), written(tmp_path / "a"), written(tmp_path / "b")
    keeping.note(first, DIGEST)
    for _ in range(MOST_KNOWN):
        keeping.note(last, DIGEST)
    assert not keeping.knows(first, DIGEST)
    assert keeping.knows(last, DIGEST)
    os.utime(last)
    assert not keeping.knows(last, DIGEST)


def begun_by(how: Keeping, steps: list[int], monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the stretches (from, to) that the disk is asked to begin with while a file grows by these steps."""
    stretches: list[tuple[int, int]] = []
    monkeypatch.setattr(module, "_begin_to_write", lambda _, start, count: stretches.append((start, start + count)))
    at = 0
    for step in steps:
        how.begin_to_sync(0, at, at + step)
        at += step
    return stretches


def test_the_disk_begins_with_each_full_stretch_of_a_growing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    half, much = BEGUN_BYTES // 2, 5 * BEGUN_BYTES // 2
    assert begun_by(LASTING, [half, half, 1, much], monkeypatch) == [(0, BEGUN_BYTES), (BEGUN_BYTES, 3 * BEGUN_BYTES)]


def test_a_simulation_leaves_the_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun_by(in_one_process(), [3 * BEGUN_BYTES], monkeypatch) == []


def test_to_begin_with_a_stretch_changes_no_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * (BEGUN_BYTES // 128)
    with (tmp_path / "a").open("wb", buffering=0) as file:
        file.write(data)
        LASTING.begin_to_sync(file.fileno(), 0, len(data))
    assert (tmp_path / "a").read_bytes() == data
