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
