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
from hub.aggregation.opening import Bytes, expected_steps
from hub.errors import AdmissionError
from protocol.compression.coding import CodingTerms, decoded, encoded
from protocol.compression.steps import parse_steps
from protocol.digest import digest_of_bytes
from protocol.manifest import manifest_of
from protocol.messages import TaskKind
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights, encode_weights, flatten
from tests.hub.conftest import specification

MODEL: Weights = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[4.0]], np.float32)}
PLAIN = encode_weights(MODEL)
STUDY = "sha256:" + "d4" * 32


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


def study_sending(*steps: str, **changes: Any) -> StudySpec:
    return parse_study(specification(transport={"upload": list(steps)}, **changes))


MASKED: dict[str, Any] = {
    "participants": {"minimum_sites": 4},
    "strategy": {"weighting": "equal"},
    "secure_aggregation": {"method": "masking", "maximum_sites": 8},
}


def test_the_steps_of_each_task() -> None:
    assert expected_steps(TaskKind.INITIALISE, study_sending()) == ["weights"]
    assert expected_steps(TaskKind.TRAIN, study_sending("zstandard")) == ["difference", "zstandard"]
    coded = study_sending("top-k:0.1", "quantise:4", "zstandard")
    assert expected_steps(TaskKind.TRAIN, coded) == ["difference", "top-k", "quantise", "zstandard"]
    assert expected_steps(TaskKind.INITIALISE, coded) == ["weights", "zstandard"]  # version 0 loses nothing
    sparse = study_sending("random-k:0.1", **MASKED)
    assert expected_steps(TaskKind.TRAIN, sparse) == ["difference", "random-k", "quantised", "masked"]
    assert expected_steps(TaskKind.INITIALISE, sparse) == ["weights"]


def coded(*steps: str, number: int = 1) -> CodingTerms:
    return CodingTerms(parse_steps(steps), manifest_of(MODEL), STUDY, number, feedback=True)


CODED = (
    ("top-k:0.4",),
    ("quantise:8", "zstandard"),
    ("random-k:0.7", "half"),
    ("top-k:0.4", "quantise:4", "zstandard"),
)


def coded_bytes(of: CodingTerms) -> bytes:
    data = b"".join(encoded([flatten(MODEL, manifest_of(MODEL))], of))
    return zstandard.compress(data) if of.steps.zstandard else data


def coded_terms(payload: bytes, of: CodingTerms, **changes: Any) -> Terms:
    return terms(payload, steps=["difference", *of.steps.names], coding=of, **changes)


@given(st.sampled_from(CODED), st.integers(1, 60))
def test_a_coded_update_is_stored_as_the_weights_file_it_stands_for(steps: tuple[str, ...], piece: int) -> None:
    of = coded(*steps)
    payload = coded_bytes(of)
    check_announced_size(coded_terms(payload, of))
    admitted, opened = checked(payload, coded_terms(payload, of), piece)
    values = decoded(b"".join(encoded([flatten(MODEL, manifest_of(MODEL))], of)), of)
    assert opened == manifest_of(MODEL).header + values.tobytes()
    assert admitted.digest == digest_of_bytes(opened)
    assert admitted.norm == pytest.approx(float(np.linalg.norm(values)))


@given(st.sampled_from(CODED), st.integers(0, 1 << 20))
def test_a_coded_update_that_is_cut_off_or_goes_on_is_refused(steps: tuple[str, ...], length: int) -> None:
    of = coded(*steps)
    payload = coded_bytes(of)
    for other in (payload[: length % len(payload)], payload + b"\0"):
        with pytest.raises(AdmissionError):
            checked(other, coded_terms(other, of))


@given(st.sampled_from(CODED), st.binary(max_size=80))
def test_any_bytes_are_refused_or_open_to_finite_values_of_the_model(steps: tuple[str, ...], data: bytes) -> None:
    of = coded(*steps)
    payload = zstandard.compress(data) if of.steps.zstandard else data
    try:
        _, opened = checked(payload, coded_terms(payload, of, bound=1e30))
    except AdmissionError:
        return
    assert len(opened) == manifest_of(MODEL).payload_bytes
    assert np.isfinite(np.frombuffer(opened[len(manifest_of(MODEL).header) :], "<f4")).all()


def test_a_coded_update_above_the_norm_is_refused() -> None:
    of = coded("quantise:8")
    payload = coded_bytes(of)
    with pytest.raises(AdmissionError, match="norm is above"):
        checked(payload, coded_terms(payload, of, bound=1.0))


def test_more_bytes_than_the_steps_can_make_are_refused_before_the_first() -> None:
    of = coded("quantise:8")
    with pytest.raises(AdmissionError, match="at most"):
        check_announced_size(coded_terms(bytes(of.most_bytes + 1), of))
    squeezed = coded("quantise:8", "zstandard")
    check_announced_size(coded_terms(bytes(of.most_bytes + 1), squeezed))
    with pytest.raises(AdmissionError, match="at most"):
        check_announced_size(coded_terms(bytes(of.most_bytes + (80 << 10)), squeezed))


def test_a_coded_update_that_swells_a_thousandfold_costs_one_block_of_memory() -> None:
    large: Weights = {"a": np.zeros(16 << 20, np.float32)}
    of = CodingTerms(parse_steps(["top-k:0.0001", "zstandard"]), manifest_of(large), STUDY, 1, feedback=True)
    payload = zstandard.compress(b"".join(encoded([large["a"]], of)))
    manifest = manifest_of(large)
    check = UpdateCheck(coded_terms(payload, of, manifest=manifest, manifest_digest=manifest.digest), Nowhere())
    tracemalloc.start()
    check.write(payload)
    check.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(payload) * 1000 < manifest.payload_bytes
    assert peak < 8 << 20


class Nowhere:
    def write(self, data: Bytes, /) -> int:
        return len(data)


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
    faster, slower = (update_norm_bound(study, None, 0.0, 100, 50, rate_factor=factor) for factor in (50.0, 0.5))
    assert faster == pytest.approx(20.0 + 4 * 50 * 0.01 * 5 * 10)
    assert slower == update_norm_bound(study, None, 0.0, 100, 50)
