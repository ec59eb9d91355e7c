"""A process is woken by what is moved into its folders, and by its end."""

import threading
import time
from pathlib import Path

import pytest

from site_node.durable import write_durably
from site_node.folder_watch import FolderWatch

LONG = 60.0


def test_a_finished_file_ends_the_wait(tmp_path: Path) -> None:
    with FolderWatch([tmp_path]) as watch:
        threading.Timer(0.05, write_durably, (tmp_path / "mail", b"sealed")).start()
        began = time.monotonic()
        watch.wait(LONG, threading.Event())
    assert (tmp_path / "mail").exists()
    assert time.monotonic() - began < LONG


def test_what_came_between_two_waits_is_not_missed(tmp_path: Path) -> None:
    with FolderWatch([tmp_path]) as watch:
        write_durably(tmp_path / "mail", b"sealed")
        began = time.monotonic()
        watch.wait(LONG, threading.Event())
    assert time.monotonic() - began < LONG


def test_each_of_several_folders_wakes(tmp_path: Path) -> None:
    folders = [tmp_path / "inbox", tmp_path / "receipts"]
    for folder in folders:
        folder.mkdir()
    with FolderWatch(folders) as watch:
        for folder in folders:
            write_durably(folder / "mail", b"sealed")
            began = time.monotonic()
            watch.wait(LONG, threading.Event())
            assert time.monotonic() - began < LONG


def test_the_wish_to_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = threading.Event()
    with FolderWatch([tmp_path]) as watch:
        threading.Timer(0.05, stop.set).start()
        watch.wait(LONG, stop)
    assert stop.is_set()


def test_the_wait_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with FolderWatch([tmp_path]) as watch:
        watch.wait(0.01, threading.Event())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        FolderWatch([tmp_path / "missing"])
