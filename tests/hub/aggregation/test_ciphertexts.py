"""What the hub takes as a ciphertext file, and how it adds them without a key."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from hub.aggregation.ciphertexts import CiphertextCheck, summed
from hub.errors import AdmissionError, AggregationError
from protocol.digest import digest_of
from protocol.homomorphic.ciphertexts import CiphertextForm, record_bytes, records_from, unpacked
from tests.fakes.ciphertext_files import EncryptedRound, encrypted_round


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> EncryptedRound:
    return encrypted_round(tmp_path_factory.mktemp("four"))


def admitted(data: bytes, form: CiphertextForm, piece: int = 10_000) -> bytes:
    sink = BytesIO()
    check = CiphertextCheck(form, sink)
    for start in range(0, len(data), piece):
        check.write(data[start : start + piece])
    check.finish()
    return sink.getvalue()


@pytest.mark.parametrize("piece", [7, 10_000, 1 << 20])
def test_an_honest_file_passes_in_whatever_pieces_it_comes(four: EncryptedRound, piece: int) -> None:
    data = four.paths[0].read_bytes()
    assert admitted(data, four.form, piece=piece) == data


@pytest.mark.parametrize("change", ["round", "study_digest", "key_id", "values", "packing"])
def test_a_file_of_another_round_study_key_size_or_packing_is_refused(four: EncryptedRound, change: str) -> None:
    others = {
        "round": replace(four.form, round=2),
        "study_digest": replace(four.form, study_digest=digest_of("another study")),
        "key_id": replace(four.form, key_id=digest_of("another key")),
        "values": replace(four.form, values=four.form.values + 1),
        "packing": replace(four.form, packing=replace(four.form.packing, bits=7)),
    }
    with pytest.raises(AdmissionError, match="not encrypted for this study and round"):
        admitted(four.paths[0].read_bytes(), others[change])


def test_a_coefficient_out_of_range_is_refused_before_the_file_has_come_whole(four: EncryptedRound) -> None:
    data = bytearray(four.paths[0].read_bytes())
    first = len(four.form.header) + 64
    data[first : first + 32768] = b"\xff" * 32768
    data[first + 32768 : first + 36864] = b"\xff" * 4096
    check = CiphertextCheck(four.form, BytesIO())
    with pytest.raises(AdmissionError, match="not below its prime"):
        check.write(bytes(data[: first + 36864]))


@pytest.mark.parametrize("size", [0, 3, 400, -1, -36928])
def test_a_file_that_is_cut_off_is_refused(four: EncryptedRound, size: int) -> None:
    with pytest.raises(AdmissionError, match="cut off"):
        admitted(four.paths[0].read_bytes()[:size], four.form)


def test_more_bytes_than_an_update_has_are_refused_as_they_come(four: EncryptedRound) -> None:
    with pytest.raises(AdmissionError, match="More bytes"):
        admitted(four.paths[0].read_bytes() + b"\0", four.form)


@pytest.mark.parametrize("window_bytes", [1, 4 * record_bytes(), 16 << 20])
def test_the_sum_does_not_depend_on_the_window(four: EncryptedRound, window_bytes: int) -> None:
    data = b"".join(summed(four.paths, four.digests, four.form, window_bytes))
    assert len(data) == four.form.sum_bytes(four.digests)
    assert data == b"".join(summed(four.paths, four.digests, four.form))


def test_the_sum_decrypts_to_the_plain_sum(four: EncryptedRound) -> None:
    """Adds the seeds' expansions here; in a round the deciding sites do."""
    data = b"".join(summed(four.paths, four.digests, four.form))
    header = len(four.form.header)
    polynomials = unpacked(
        np.frombuffer(data[len(four.form.sum_header(four.digests)) :], np.uint8).reshape(four.form.ciphertexts, -1)
    )
    for index in range(four.form.ciphertexts):
        files = (records_from(path.read_bytes()[header:])[index : index + 1] for path in four.paths)
        total = four.cipher.add(list(files))
        np.testing.assert_array_equal(four.cipher.first_polynomial(total)[0], polynomials[index])


def test_a_blob_that_is_missing_cut_off_or_of_another_round_stops_the_sum(four: EncryptedRound, tmp_path: Path) -> None:
    with pytest.raises(AggregationError, match="missing"):
        list(summed([*four.paths, tmp_path / "none"], four.digests, four.form))
    cut = tmp_path / "cut"
    cut.write_bytes(four.paths[0].read_bytes()[:-1])
    with pytest.raises(AggregationError, match="no encrypted update"):
        list(summed([cut], ["x"], four.form))
    with pytest.raises(AggregationError, match="no encrypted update"):
        list(summed(four.paths, four.digests, replace(four.form, round=9)))


def test_a_damaged_blob_stops_the_sum(four: EncryptedRound, tmp_path: Path) -> None:
    data = bytearray(four.paths[0].read_bytes())
    data[-36864:] = b"\xff" * 36864
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    with pytest.raises(AggregationError, match="cannot be added"):
        list(summed([damaged, four.paths[1]], four.digests[:2], four.form))
