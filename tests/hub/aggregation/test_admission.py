"""The checks of a payload while its bytes arrive, in pieces of any size."""

import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hub.aggregation.admission import Admitted, Terms, UpdateCheck, check_announced_size
from hub.aggregation.norm_bound import fresh_norm_bound, update_norm_bound
from hub.aggregation.opening import expected_steps
from hub.errors import AdmissionError
from protocol.digest import digest_of_bytes
from protocol.manifest import manifest_of
from protocol.messages import TaskKind
from protocol.study import parse_study
from protocol.tensors import Weights, encode_weights
from tests.hub.conftest import specification

MODEL: Weights = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[4.0]], np.float32)}
PLAIN = encode_weights(MODEL)


def terms(payload: bytes, *, bound: float = 100.0, known: bool = True, **changes: Any) -> Terms:
    manifest = manifest_of(MODEL)
    fields: dict[str, Any] = {
        "payload_digest": digest_of_bytes(payload),
        "payload_bytes": len(payload),
        "steps": ["difference"],
        "manifest_digest": manifest.digest,
        "manifest": manifest if known else None,
        "norm_bound": lambda _: bound,
    }
    return Terms(**{**fields, **changes})


def checked(payload: bytes, of: Terms, piece: int = 1 << 20) -> tuple[Admitted, bytes]:
    sink = io.BytesIO()
    check = UpdateCheck(of, sink)
    for start in range(0, len(payload), piece):
        check.write(payload[start : start + piece])
    return check.finish(), sink.getvalue()


@given(piece=st.integers(1, len(PLAIN) + 1), compressed=st.booleans(), known=st.booleans())
def test_an_honest_payload_is_admitted_in_pieces_of_any_size(piece: int, compressed: bool, known: bool) -> None:
    payload = zstandard.compress(PLAIN) if compressed else PLAIN
    steps = ["difference", "zstandard"] if compressed else ["difference"]
    admitted, opened = checked(payload, terms(payload, steps=steps, known=known), piece)
    assert opened == PLAIN
    assert admitted == Admitted(manifest_of(MODEL), 5.0, digest_of_bytes(PLAIN))


@given(position=st.integers(0, len(PLAIN) - 1), bit=st.integers(0, 7), compressed=st.booleans())
def test_no_single_changed_bit_passes(position: int, bit: int, compressed: bool) -> None:
    payload = zstandard.compress(PLAIN) if compressed else PLAIN
    steps = ["difference", "zstandard"] if compressed else ["difference"]
    position %= len(payload)
    damaged = bytearray(payload)
    damaged[position] ^= 1 << bit
    with pytest.raises(AdmissionError):
        checked(bytes(damaged), terms(payload, steps=steps))


@given(garbage=st.binary(max_size=400), compressed=st.booleans())
def test_garbage_is_refused_and_nothing_else_happens(garbage: bytes, compressed: bool) -> None:
    steps = ["weights", "zstandard"] if compressed else ["weights"]
    with pytest.raises(AdmissionError):
        checked(garbage, terms(garbage, steps=steps, known=False), 16)


@given(length=st.integers(0, len(PLAIN) - 1))
def test_a_prefix_is_refused(length: int) -> None:
    with pytest.raises(AdmissionError, match="cut off"):
        checked(PLAIN[:length], terms(PLAIN))


def test_the_first_byte_too_many_is_refused() -> None:
    check = UpdateCheck(terms(PLAIN), io.BytesIO())
    check.write(PLAIN)
    with pytest.raises(AdmissionError, match="More bytes"):
        check.write(b"x")


def test_the_norm_bound_is_inclusive() -> None:
    assert checked(PLAIN, terms(PLAIN, bound=5.0))[0].norm == 5.0
    with pytest.raises(AdmissionError, match="norm"):
        checked(PLAIN, terms(PLAIN, bound=4.999))


def test_a_bomb_takes_neither_memory_nor_disk() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(PLAIN + bytes(512 << 20))
    sink = io.BytesIO()
    check = UpdateCheck(terms(bomb, steps=["difference", "zstandard"]), sink)
    tracemalloc.start()
    with pytest.raises(AdmissionError, match="more values"):
        check.write(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert len(sink.getvalue()) <= len(PLAIN)


def test_a_version_0_of_zeros_cannot_fill_the_disk() -> None:
    zeros = {"w": np.zeros(16 << 20, np.float32)}
    bomb = zstandard.compress(encode_weights(zeros))
    sink = io.BytesIO()
    digest = manifest_of(zeros).digest
    check = UpdateCheck(terms(bomb, known=False, steps=["weights", "zstandard"], manifest_digest=digest), sink)
    with pytest.raises(AdmissionError, match="times the bytes"):
        check.write(bomb)
    assert sink.getvalue() == b""


def test_a_header_that_claims_to_be_huge_is_refused_at_its_eighth_byte() -> None:
    check = UpdateCheck(terms(PLAIN, known=False), io.BytesIO())
    with pytest.raises(AdmissionError, match="header"):
        check.write((1 << 62).to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("steps", "announced", "fine"),
    [
        (["difference"], len(PLAIN), True),
        (["difference"], len(PLAIN) + 1, False),
        (["difference", "zstandard"], 20, True),
        (["difference", "zstandard"], len(PLAIN) + 60_000, True),
        (["difference", "zstandard"], 10 << 20, False),
    ],
)
def test_sizes_are_checked_before_a_byte_is_stored(steps: list[str], announced: int, fine: bool) -> None:
    of = terms(PLAIN, steps=steps, payload_bytes=announced)
    if fine:
        check_announced_size(of)
        return
    with pytest.raises(AdmissionError):
        check_announced_size(of)


def test_the_steps_of_each_task() -> None:
    assert expected_steps(TaskKind.INITIALISE, "none") == ["weights"]
    assert expected_steps(TaskKind.TRAIN, "zstandard") == ["difference", "zstandard"]


def test_the_norm_bound_leaves_room_for_the_noise_of_the_terms() -> None:
    """Ten steps of DP-SGD with the study's noise at a small hospital: what an honest site sends is far inside."""
    training = {"local_steps": 10, "sampling_rate": 0.2, "learning_rate": 0.5}
    private = {"epsilon": 1.0, "delta": 1e-5, "clip_norm": 1.0}
    study = parse_study(specification(training=training, privacy=private, participants={"training_patients": 100}))
    parameters, noise, patients = 100_000, 3.0, 25
    generator = np.random.default_rng(7)
    honest = np.zeros(parameters)
    for _ in range(10):
        honest -= 0.5 * noise * generator.standard_normal(parameters) / (0.2 * patients)
    norm = float(np.linalg.norm(honest))
    bound = update_norm_bound(study, noise, 20.0, parameters, patients)
    assert norm < bound < 20 * norm


def test_without_noise_the_bound_follows_the_model() -> None:
    study = parse_study(specification())
    assert update_norm_bound(study, None, 9.0, 100, 50) == 110.0
    assert fresh_norm_bound(100) == 100.0


def test_adam_moves_each_value_by_its_learning_rate() -> None:
    study = parse_study(specification(training={"optimizer": "adam", "learning_rate": 0.01, "local_steps": 5}))
    assert update_norm_bound(study, None, 0.0, 100, 50) == pytest.approx(20.0 + 4 * 0.01 * 5 * 10)
