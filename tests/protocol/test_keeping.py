"""Digests that are not computed twice: known for the very bytes that were digested, and for no others."""

import os
from pathlib import Path

from protocol.digest import digest_of_bytes
from protocol.keeping import LASTING, MOST_KNOWN, in_one_process

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
