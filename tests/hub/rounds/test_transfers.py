"""Payloads in transfer: kept once where nothing has to be undone, and never longer than announced."""

from pathlib import Path

import numpy as np
import pytest
import zstandard

from hub.aggregation.admission import Terms
from hub.errors import AdmissionError
from hub.rounds.transfers import Transfer, travels_as_it_is
from protocol.compression.coding import CodingTerms
from protocol.compression.steps import parse_steps
from protocol.digest import digest_of_bytes
from protocol.keeping import LASTING, Keeping, in_one_process
from protocol.manifest import manifest_of
from protocol.tensors import encode_weights

WEIGHTS = {"a": np.array([3.0, 4.0], np.float32)}
PLAIN = encode_weights(WEIGHTS)


def terms(payload: bytes, *steps: str, coding: CodingTerms | None = None) -> Terms:
    manifest = manifest_of(WEIGHTS)
    shape = (digest_of_bytes(payload), len(payload), steps, manifest.digest)
    return Terms(*shape, manifest, lambda _: 100.0, coding=coding)


def test_bytes_that_are_stored_as_they_come_are_written_once(tmp_path: Path) -> None:
    transfer = Transfer(tmp_path, "id", terms(PLAIN, "difference"))
    transfer.append(0, PLAIN[:10])
    transfer.append(10, memoryview(PLAIN)[10:])
    assert transfer.finish().norm == 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["id"]
    assert transfer.plain_path.read_bytes() == PLAIN


def test_compressed_bytes_are_kept_beside_what_they_open_to(tmp_path: Path) -> None:
    payload = zstandard.compress(PLAIN)
    transfer = Transfer(tmp_path, "id", terms(payload, "difference", "zstandard"))
    transfer.append(0, payload)
    transfer.finish()
    assert transfer.path.read_bytes() == payload
    assert transfer.plain_path.read_bytes() == PLAIN


def test_a_payload_of_a_codec_is_opened_whatever_its_steps_are_called() -> None:
    coding = CodingTerms(parse_steps(["quantise:8"]), manifest_of(WEIGHTS), "sha256:" + 64 * "0", 1, feedback=False)
    assert not travels_as_it_is(terms(PLAIN, "difference", "quantised", coding=coding))
    assert travels_as_it_is(terms(PLAIN, "difference", "quantised", "masked"))


def test_what_comes_beyond_the_announced_bytes_is_refused_and_not_written(tmp_path: Path) -> None:
    transfer = Transfer(tmp_path, "id", terms(PLAIN, "difference"))
    transfer.append(0, PLAIN)
    with pytest.raises(AdmissionError):
        transfer.append(len(PLAIN), b"more")
    assert transfer.path.read_bytes() == PLAIN


def test_a_transfer_goes_on_in_another_process_at_its_last_byte(tmp_path: Path) -> None:
    Transfer(tmp_path, "id", terms(PLAIN, "difference")).append(0, PLAIN[:30])
    after = Transfer(tmp_path, "id", terms(PLAIN, "difference"))
    after.append(30, PLAIN[30:])
    assert after.finish().digest == digest_of_bytes(PLAIN)


def given(folder: Path, data: bytes, keeping: Keeping) -> Path:
    file = folder / "outbox"
    file.write_bytes(data)
    keeping.note(file, digest_of_bytes(data))
    return file


def test_a_file_of_this_process_is_taken_as_it_is_and_checked(tmp_path: Path) -> None:
    keeping = in_one_process()
    file, transfer = given(tmp_path, PLAIN, keeping), Transfer(tmp_path, "id", terms(PLAIN, "difference"))
    assert transfer.take(file, keeping)
    assert transfer.received_bytes == len(PLAIN)
    assert transfer.finish().norm == 5.0
    assert transfer.plain_path.samefile(file)


def test_a_compressed_file_of_this_process_is_opened(tmp_path: Path) -> None:
    payload, keeping = zstandard.compress(PLAIN), in_one_process()
    file = given(tmp_path, payload, keeping)
    transfer = Transfer(tmp_path, "id", terms(payload, "difference", "zstandard"))
    assert transfer.take(file, keeping)
    assert transfer.finish().digest == digest_of_bytes(PLAIN)
    assert transfer.plain_path.read_bytes() == PLAIN


def test_a_known_file_is_still_refused_for_what_it_holds(tmp_path: Path) -> None:
    broken, keeping = encode_weights({"a": np.array([3.0, np.nan], np.float32)}), in_one_process()
    file = given(tmp_path, broken, keeping)
    with pytest.raises(AdmissionError, match="not finite"):
        Transfer(tmp_path, "id", terms(broken, "difference")).take(file, keeping)


def test_a_file_that_this_process_did_not_digest_is_not_taken(tmp_path: Path) -> None:
    file = given(tmp_path, PLAIN, LASTING)
    for keeping in (LASTING, in_one_process()):
        assert not Transfer(tmp_path, "id", terms(PLAIN, "difference")).take(file, keeping)
