"""An object that cannot be taken: its status, its reason, its bytes kept, and the association that goes on."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from site_node.ingest import object_check, reception
from site_node.ingest.quarantine import Quarantine
from tests.fakes.dicom import make_dataset, save, uid_of
from tests.fakes.odd_objects import make_odd_objects
from tests.fakes.raw_modality import DX, EXPLICIT, data_of, raw_modality
from tests.fakes.running_listener import ListenerHere, listener_here

PIXELS = np.full((32, 24), 7, dtype=np.uint16)
CT = "1.2.840.10008.5.1.4.1.1.2"
MEGABYTE = 1 << 20


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[ListenerHere]:
    with listener_here(tmp_path / "listener", max_object_mb=1) as found:
        yield found


def good(folder: Path, name: str = "good") -> tuple[bytes, str]:
    dataset = make_dataset(PIXELS, "P1", name)
    return data_of(save(dataset, folder / f"{name}.dcm")), str(dataset.SOPInstanceUID)


BAD: dict[str, tuple[Callable[[bytes], bytes], str, int]] = {
    "no content": (lambda data: b"", object_check.EMPTY, 0xC000),
    "no DICOM": (lambda data: b"these are no elements at all" * 40, object_check.CUT_SHORT, 0xC000),
    "cut in its pixels": (lambda data: data[:-100], object_check.PIXELS_CUT_SHORT, 0xC000),
    "cut in an element": (lambda data: data[:60], object_check.CUT_SHORT, 0xC000),
    "another instance": (lambda data: data.replace(uid(), other()), object_check.OTHER_INSTANCE, 0xC000),
    "another class": (
        lambda data: data.replace(DX.encode().ljust(28, b"\0"), CT.encode().ljust(28, b"\0")),
        object_check.OTHER_CLASS,
        0xA900,
    ),
}


def uid() -> bytes:
    return str(uid_of("P1/bad")).encode()


def other() -> bytes:
    return uid()[:-3] + b"111"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_object_is_quarantined_with_its_reason_and_the_next_one_is_stored(
    listener: ListenerHere, tmp_path: Path, name: str
) -> None:
    make_bad, reason, status = BAD[name]
    data, instance = good(tmp_path, "bad")
    bad = make_bad(data)
    assert bad != data
    with raw_modality(listener.port) as modality:
        assert modality.send(bad, instance) == status
        assert modality.send(*good(tmp_path)) == 0
    assert listener.reasons() == [reason]
    [entry] = Quarantine(listener.paths.quarantine).entries()
    assert entry.caller == "CT1"
    if bad:
        assert entry.file is not None
        assert data_of(listener.paths.quarantine / entry.file) == bad
    assert len(listener.stored()) == 1
    assert list(listener.paths.incoming.iterdir()) == []


def test_an_object_that_is_too_large_is_refused_and_its_bytes_are_not_kept(
    listener: ListenerHere, tmp_path: Path
) -> None:
    with raw_modality(listener.port) as modality:
        assert modality.send(bytes(3 * MEGABYTE), "1.2.3") == 0xC000
        assert modality.send(*good(tmp_path)) == 0
    assert listener.reasons() == [
        "it is larger than 1 MB, the most that is accepted (max_object_mb); its bytes were not kept"
    ]
    assert list(listener.paths.quarantine.glob("*.dcm")) == []


@pytest.mark.parametrize("instance", [None, "1.2." + "3" * 70])
def test_an_object_without_a_usable_name_is_answered_not_passed_over(
    listener: ListenerHere, tmp_path: Path, instance: str | None
) -> None:
    data, _ = good(tmp_path)
    with raw_modality(listener.port) as modality:
        assert modality.send(data, instance) == 0xC000
        assert modality.send(*good(tmp_path)) == 0
    assert listener.reasons() == [reception.UNANNOUNCED]


def test_the_same_bad_object_again_is_counted_and_not_kept_again(listener: ListenerHere, tmp_path: Path) -> None:
    data, instance = good(tmp_path)
    with raw_modality(listener.port) as modality:
        for _ in range(3):
            modality.send(data[:-100], instance)
    [entry] = Quarantine(listener.paths.quarantine).entries()
    assert entry.times == 3
    assert len(list(listener.paths.quarantine.glob("*.dcm"))) == 1
    assert listener.counts()["quarantined"] == 3


def test_every_kind_of_object_is_stored_with_the_very_bytes_that_came(listener: ListenerHere, tmp_path: Path) -> None:
    odd = make_odd_objects(tmp_path / "odd").good
    contexts = sorted({_pair(path) for path in odd.values()})
    with raw_modality(listener.port, contexts) as modality:
        assert {name: modality.send_file(path) for name, path in odd.items()} == dict.fromkeys(odd, 0)
    assert sorted(data_of(p) for p in listener.stored()) == sorted(data_of(p) for p in odd.values())


def _pair(path: Path) -> tuple[str, str]:
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def test_the_same_instance_in_another_transfer_syntax_is_told_apart_from_other_content(
    listener: ListenerHere, tmp_path: Path
) -> None:
    data, instance = good(tmp_path)
    with raw_modality(listener.port, [(DX, EXPLICIT), (DX, "1.2.840.10008.1.2.4.70")]) as modality:
        assert modality.send(data, instance, context=1) == 0
        assert modality.send(data, instance, context=3) == 0x0111
    assert listener.reasons() == [reception.OTHER_SYNTAX]


def test_an_unknown_transfer_syntax_is_taken_as_it_comes(listener: ListenerHere, tmp_path: Path) -> None:
    with raw_modality(listener.port, [(DX, "1.2.40.0.13.1.5000.99")]) as modality:
        assert modality.send(*good(tmp_path)) == 0
    [path] = listener.stored()
    assert data_of(path) == good(tmp_path)[0]


def test_deflated_content_that_inflates_without_end_is_quarantined(listener: ListenerHere) -> None:
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packing.compress(bytes(8 * MEGABYTE)) + packing.flush()
    with raw_modality(listener.port, [(DX, "1.2.840.10008.1.2.1.99")]) as modality:
        assert modality.send(bomb, "1.2.3") == 0xC000
        assert modality.send(bomb[:-20], "1.2.4") == 0xC000
    assert listener.reasons() == sorted([object_check.INFLATES_TOO_FAR] * 2)
