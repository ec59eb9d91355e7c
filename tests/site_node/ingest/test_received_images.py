"""The folder of received images: one place for an instance, whoever writes, and on whichever disk."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from site_node.ingest.object_check import Announced
from site_node.ingest.received_images import Kept, ReceivedImages, head_of
from tests.fakes.walls_disks import Disk

DX = "1.2.840.10008.5.1.4.1.1.1.1"
ANNOUNCED = Announced(DX, "1.2.3", "1.2.840.10008.1.2.1")


def finished(folder: Path, name: str, content: bytes = b"content", announced: Announced = ANNOUNCED) -> Path:
    path = folder / name
    path.write_bytes(head_of(announced) + content)
    return path


@contextmanager
def no_links(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise OSError(number, "no link")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "hardlink_to", refuse)
        yield


def test_an_instance_has_one_place_that_its_uid_gives(tmp_path: Path) -> None:
    images = ReceivedImages(tmp_path / "images")
    assert images.class_of("1.2.3") is None
    assert images.keep(finished(tmp_path, "a"), ANNOUNCED) is Kept.STORED
    assert images.class_of("1.2.3") == DX
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_disk_without_links_keeps_the_first_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    images = ReceivedImages(tmp_path / "images")
    with no_links(monkeypatch, number):
        assert images.keep(finished(tmp_path, "a"), ANNOUNCED) is Kept.STORED
        assert images.keep(finished(tmp_path, "b"), ANNOUNCED) is Kept.REPEATED
        assert images.keep(finished(tmp_path, "c", b"other"), ANNOUNCED) is Kept.OTHER_BYTES
    assert images.path_of("1.2.3").read_bytes().endswith(b"content")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a second disk: run it as root")
def test_an_object_may_come_from_another_disk(tmp_path: Path) -> None:
    disk = Disk.mount(tmp_path / "disk", 4)
    try:
        images = ReceivedImages(tmp_path / "images")
        source = finished(disk.root, "a")
        assert images.keep(source, ANNOUNCED) is Kept.STORED
        assert not source.exists()
        assert images.keep(finished(disk.root, "b"), ANNOUNCED) is Kept.REPEATED
        assert [path.name for path in images.path_of("1.2.3").parent.iterdir()] == [images.path_of("1.2.3").name]
    finally:
        disk.unmount()


def test_of_many_that_come_at_once_one_is_stored_and_stays(tmp_path: Path) -> None:
    """As two processes would: each has a folder object, and so a lock, of its own."""
    files = [finished(tmp_path, str(n), f"content {n % 4}".encode()) for n in range(32)]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda path: ReceivedImages(tmp_path / "images").keep(path, ANNOUNCED), files))
    assert kept.count(Kept.STORED) == 1
    assert kept.count(Kept.REPEATED) == 7
    assert kept.count(Kept.OTHER_BYTES) == 24


def test_another_transfer_syntax_is_told_apart(tmp_path: Path) -> None:
    images = ReceivedImages(tmp_path / "images")
    images.keep(finished(tmp_path, "a"), ANNOUNCED)
    implicit = Announced(DX, "1.2.3", "1.2.840.10008.1.2")
    assert images.keep(finished(tmp_path, "b", announced=implicit), implicit) is Kept.OTHER_SYNTAX
