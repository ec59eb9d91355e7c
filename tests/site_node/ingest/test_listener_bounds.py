"""What a caller cannot do to the listener: fill the disk, its memory or its threads, or get in without being listed."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from pynetdicom.pdu_primitives import P_DATA

from site_node.errors import ListenerError, SettingsError
from site_node.ingest import callers
from site_node.ingest.intake import Room
from site_node.ingest.listener import listening
from site_node.ingest.listener_paths import ListenerPaths
from site_node.listener_settings import ListenerSettings
from tests.fakes.dicom import make_dataset, save
from tests.fakes.raw_modality import data_of, raw_modality
from tests.fakes.running_listener import ListenerHere, listener_here
from tests.fakes.waiting import until
from tests.fakes.walls_disks import Disk

PIXELS = np.full((32, 24), 7, dtype=np.uint16)
MEGABYTE = 1 << 20
OUT_OF_RESOURCES = 0xA700
SECONDS = 30


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[ListenerHere]:
    with listener_here(tmp_path / "listener", max_associations=2, idle_seconds=2) as found:
        yield found


def good(folder: Path, name: str = "good", size: int = 24) -> tuple[bytes, str]:
    dataset = make_dataset(np.zeros((size, size), dtype=np.uint16), "P1", name)
    return data_of(save(dataset, folder / f"{name}.dcm")), str(dataset.SOPInstanceUID)


class FakeDisk:
    """So many bytes free, or fewer from the n-th look on."""

    def __init__(self, free: int, after: int | None = None) -> None:
        self.free, self.after, self.looks = free, after, 0

    def __call__(self, _: Path) -> int:
        self.looks += 1
        return 0 if self.after is not None and self.looks > self.after else self.free


def room(folder: Path, disk: FakeDisk, most: int = 64 * MEGABYTE) -> Room:
    return Room(folder / "listener" / "own" / "incoming", 10 * MEGABYTE, most, disk)


def test_below_the_free_space_that_must_stay_nothing_is_taken_and_it_ends_by_itself(tmp_path: Path) -> None:
    disk = FakeDisk(9 * MEGABYTE)
    with (
        listener_here(tmp_path / "listener", room(tmp_path, disk)) as listener,
        raw_modality(listener.port) as modality,
    ):
        assert modality.send(*good(tmp_path)) == OUT_OF_RESOURCES
        assert modality.send(*good(tmp_path)) == OUT_OF_RESOURCES
        assert listener.stored() == []
        assert listener.reasons() == []
        disk.free = 11 * MEGABYTE
        assert modality.send(*good(tmp_path)) == 0
        assert listener.counts()["refused_no_space"] == 2
        assert len(listener.stored()) == 1


def test_a_disk_that_runs_short_in_the_middle_of_an_object_is_noticed_there(tmp_path: Path) -> None:
    disk = FakeDisk(11 * MEGABYTE, after=1)
    with (
        listener_here(tmp_path / "listener", room(tmp_path, disk)) as listener,
        raw_modality(listener.port) as modality,
    ):
        assert modality.send(bytes(40 * MEGABYTE), "1.2.3") == OUT_OF_RESOURCES
        assert disk.looks == 2  # at the beginning, and after 16 MB
        assert list(listener.paths.incoming.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk: run it as root")
@pytest.mark.parametrize("min_free_mb", [3, 1])
def test_on_a_real_small_disk_objects_are_refused_until_there_is_room(tmp_path: Path, min_free_mb: int) -> None:
    disk = Disk.mount(tmp_path / "disk", 8)
    try:
        large = good(tmp_path, "large", 1200)  # 2.9 MB
        with (
            listener_here(tmp_path / "disk" / "listener", min_free_mb=min_free_mb) as listener,
            raw_modality(listener.port) as modality,
        ):
            disk.fill(but_bytes=2 * MEGABYTE)
            assert modality.send(*large) == OUT_OF_RESOURCES
            assert disk.free_bytes > MEGABYTE
            disk.make_room()
            assert modality.send(*large) == 0
            assert len(listener.stored()) == 1
    finally:
        disk.unmount()


def test_an_empty_list_of_callers_refuses_everybody(tmp_path: Path) -> None:
    with listener_here(tmp_path, callers=[]) as listener, raw_modality(listener.port) as modality:
        assert not modality.association.is_established


def test_a_caller_is_refused_from_an_address_that_is_not_its_own(tmp_path: Path) -> None:
    far = [{"ae_title": "CT1", "addresses": ["192.0.2.7"]}, {"ae_title": "CT2", "addresses": ["127.0.0.0/8"]}]
    with listener_here(tmp_path, callers=far) as listener:
        with raw_modality(listener.port) as stranger:
            assert not stranger.association.is_established
        with raw_modality(listener.port, ae_title="CT2") as known:
            assert known.association.is_established
        assert listener.counts()["associations_refused"] == 1


def test_more_associations_than_allowed_are_rejected_and_room_comes_back(
    listener: ListenerHere, tmp_path: Path
) -> None:
    with raw_modality(listener.port) as one, raw_modality(listener.port) as two:
        assert one.association.is_established
        assert two.association.is_established
        with raw_modality(listener.port) as three:
            assert not three.association.is_established
    until(lambda: listener.listener.server.connections == 0)
    with raw_modality(listener.port) as again:
        assert again.send(*good(tmp_path)) == 0


def test_connections_that_say_nothing_are_bounded_and_hung_up_on(listener: ListenerHere, tmp_path: Path) -> None:
    with ExitStack() as silent:
        connections = [silent.enter_context(_connection(listener)) for _ in range(12)]
        until(lambda: sum(_is_closed(c) for c in connections) >= 8)  # at most twice the associations are held
        assert listener.listener.server.connections <= 4
        until(lambda: all(_is_closed(c) for c in connections))  # silent for longer than a caller may be
    until(lambda: listener.listener.server.connections == 0)
    with raw_modality(listener.port) as modality:
        assert modality.send(*good(tmp_path)) == 0


def test_a_pdu_that_announces_gigabytes_is_not_read(listener: ListenerHere) -> None:
    with _connection(listener) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0) + bytes(100))
        until(lambda: _is_closed(connection))


@pytest.mark.parametrize("head", [b"\x01", b"\x00"])
def test_a_command_or_a_dataset_without_end_ends_the_association(listener: ListenerHere, head: bytes) -> None:
    with raw_modality(listener.port) as modality:
        piece = P_DATA()
        piece.presentation_data_value_list = [[1, head + bytes(60_000)]]
        for _ in range(callers.MAX_DATASET_BYTES // 60_000 + 2 if head == b"\x00" else 3):
            modality.association.dul.send_pdu(piece)
        until(lambda: not modality.association.is_established)


def test_the_files_of_an_association_that_breaks_off_are_removed(listener: ListenerHere, tmp_path: Path) -> None:
    data, instance = good(tmp_path, "large", 1200)
    with raw_modality(listener.port) as modality:
        sent = threading.Thread(target=modality.send, args=(data, instance))
        sent.start()
        until(lambda: bool(listener.stored() or list(listener.paths.incoming.iterdir())))
        modality.association.abort()
        sent.join(SECONDS)
    until(lambda: listener.listener.server.connections == 0)
    assert list(listener.paths.incoming.iterdir()) == []


def test_two_senders_of_the_same_instance_at_once_store_it_once(listener: ListenerHere, tmp_path: Path) -> None:
    data, instance = good(tmp_path)
    other = data[:-2] + b"\x01\x01"
    statuses: list[int] = []

    def send(content: bytes) -> None:
        with raw_modality(listener.port) as modality:
            statuses.append(modality.send(content, instance))

    senders = [threading.Thread(target=send, args=(content,)) for content in (data, other)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(SECONDS)
    assert sorted(statuses) == [0, 0x0111]
    [kept] = listener.stored()
    assert data_of(kept) in (data, other)


def test_a_port_that_is_taken_is_told_with_a_remedy(listener: ListenerHere, tmp_path: Path) -> None:
    settings = ListenerSettings(port=listener.port)
    paths = ListenerPaths(tmp_path / "a", tmp_path / "b")
    with pytest.raises(ListenerError, match="Correct address and port"), listening(settings, paths):
        pass


def test_a_certificate_that_is_missing_is_told_with_a_remedy(tmp_path: Path) -> None:
    tls = {"certificate": tmp_path / "none.crt", "key": tmp_path / "none.key", "ca": tmp_path / "ca.crt"}
    settings = ListenerSettings.model_validate({"port": 0, "tls": tls})
    paths = ListenerPaths(tmp_path / "a", tmp_path / "b")
    with pytest.raises(SettingsError, match="PEM"), listening(settings, paths):
        pass


def _connection(listener: ListenerHere) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=SECONDS)


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
