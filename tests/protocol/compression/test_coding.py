"""A coded vector comes back as the study's steps say, from bytes in pieces of any size, and nothing else is read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocol.compression.choice import BLOCK_VALUES, chosen_number
from protocol.compression.coding import CodingTerms, Decoder, Values, decoded, encoded
from protocol.compression.steps import parse_steps
from protocol.errors import CodecError
from protocol.manifest import Manifest, TensorEntry

STUDY = "sha256:" + "c3" * 32
LISTS = [
    ["quantise:8"],
    ["quantise:2"],
    ["half"],
    ["half:bfloat16"],
    ["top-k:0.1"],
    ["top-k:0.02", "quantise:3"],
    ["top-k:0.5", "half"],
    ["random-k:0.1"],
    ["random-k:0.05", "quantise:4"],
    ["random-k:1", "half:bfloat16"],
]
SIZES = ((3, 5), (7,), (0,), (40, 4), ())
LARGE = ((300, 300), (1,), (70_000,), (12, 12))


def terms_of(
    listed: Sequence[str], shapes: Sequence[tuple[int, ...]] = SIZES, *, feedback: bool = False, number: int = 1
) -> CodingTerms:
    manifest = Manifest(tuple(TensorEntry(f"t{place}", shape) for place, shape in enumerate(shapes)))
    return CodingTerms(parse_steps(listed), manifest, STUDY, number, feedback)


def vector_of(terms: CodingTerms, seed: int = 0) -> Values:
    return np.random.default_rng(seed).normal(size=terms.manifest.parameters).astype(np.float32)


def draws(seed: int = 0) -> "Chance":
    return Chance(np.random.default_rng(seed))


class Chance:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def __call__(self, number: int) -> NDArray[np.uint32]:
        return self._generator.integers(0, 2**32, number, np.uint32)


def bytes_of(vector: Values, terms: CodingTerms, seed: int = 0) -> bytes:
    return b"".join(encoded([vector], terms, draws(seed)))


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("shapes", [SIZES, LARGE], ids=["one block", "many blocks"])
@pytest.mark.parametrize("listed", LISTS, ids="+".join)
def test_pieces_of_any_size_give_the_same_vector(
    listed: list[str], shapes: Sequence[tuple[int, ...]], feedback: bool
) -> None:
    terms = terms_of(listed, shapes, feedback=feedback)
    vector = vector_of(terms)
    data = bytes_of(vector, terms)
    parts = [vector[:1], vector[1:1], vector[1:50_000], vector[50_000:]]
    assert b"".join(encoded(parts, terms, draws())) == data
    assert len(data) <= terms.most_bytes
    decoder, seen = Decoder(terms), []
    step = 7 if len(data) < 10_000 else 9_973
    for start in range(0, len(data), step):
        seen += list(decoder.feed(data[start : start + step]))
    decoder.finish()
    assert np.array_equal(np.concatenate(seen), decoded(data, terms))
    assert max(part.size for part in seen) <= BLOCK_VALUES


def test_top_k_at_full_width_keeps_the_largest_and_drops_the_rest() -> None:
    terms = terms_of(["top-k:0.4"], ((5,),))
    vector = np.array([1, -5, 0.5, 4, -2], np.float32)
    assert decoded(bytes_of(vector, terms), terms).tolist() == [0, -5, 0, 4, 0]
    assert len(bytes_of(vector, terms)) == 1 + 2 * 4  # a bitmap and two values


def test_random_k_is_scaled_unless_what_it_drops_is_kept() -> None:
    vector = np.full(10, 3, np.float32)
    plain = decoded(bytes_of(vector, terms_of(["random-k:0.2"], ((10,),))), terms_of(["random-k:0.2"], ((10,),)))
    kept = terms_of(["random-k:0.2"], ((10,),), feedback=True)
    assert sorted(plain)[-3:] == [0, 15, 15]  # 3 x 10/2
    assert sorted(decoded(bytes_of(vector, kept), kept))[-3:] == [0, 3, 3]


@pytest.mark.parametrize("listed", [["random-k:0.25"], ["quantise:2"], ["random-k:0.5", "quantise:3"]], ids="+".join)
def test_without_feedback_the_mean_over_many_rounds_is_the_vector(listed: list[str]) -> None:
    rounds, first = 4000, terms_of(listed, ((4,), (12,)))
    vector, chance = vector_of(first), draws(5)
    total = np.zeros(vector.size)
    for number in range(rounds):
        terms = replace(first, round=number)
        total += decoded(b"".join(encoded([vector], terms, chance)), terms)
    spread = np.abs(vector).max() * 4 / np.sqrt(rounds)
    assert np.abs(total / rounds - vector).max() < 4 * spread


@given(st.sampled_from([steps for steps in LISTS if "half" not in "".join(steps)]), st.integers(0, 10_000))
def test_with_feedback_the_error_is_never_longer_than_the_vector(listed: list[str], seed: int) -> None:
    terms = terms_of(listed, feedback=True)
    vector = vector_of(terms, seed)
    error = vector - decoded(bytes_of(vector, terms), terms)
    assert np.linalg.norm(error) <= np.linalg.norm(vector) * (1 + 1e-6)
    if listed[0].startswith("top-k"):
        left = 1 - chosen_number(vector.size, terms.steps.fraction) / vector.size
        exact = replace(terms, steps=parse_steps(listed[:1]))
        error = vector - decoded(bytes_of(vector, exact), exact)
        assert np.square(error).sum() <= left * np.square(vector).sum() * (1 + 1e-6)


def test_each_piece_of_a_tensor_has_a_scale_of_its_own() -> None:
    terms = terms_of(["quantise:8"], ((4,), (4,)), feedback=True)
    vector = np.array([100, -50, 25, 0, 0.01, -0.01, 0.005, 0], np.float32)
    back = decoded(bytes_of(vector, terms), terms)
    assert np.abs(back - vector)[:4].max() <= 100 / 127 / 2
    assert np.abs(back - vector)[4:].max() <= 0.01 / 127 / 2 + 1e-9


def test_a_vector_of_zeros_stays_zero() -> None:
    for listed in LISTS:
        terms = terms_of(listed)
        zeros = np.zeros(terms.manifest.parameters, np.float32)
        assert not decoded(bytes_of(zeros, terms), terms).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_never_coded(value: float) -> None:
    for listed in LISTS:
        terms = terms_of(listed)
        vector = vector_of(terms)
        vector[3] = value
        with pytest.raises(CodecError, match="finite"):
            bytes_of(vector, terms)


def test_a_value_beyond_half_precision_is_refused_at_its_source() -> None:
    terms = terms_of(["half"], ((2,),))
    with pytest.raises(CodecError, match="beyond the range of float16"):
        bytes_of(np.array([1, 1e6], np.float32), terms)
    wide = terms_of(["half:bfloat16"], ((2,),))
    assert decoded(bytes_of(np.array([1, 1e6], np.float32), wide), wide)[1] == pytest.approx(1e6, rel=2**-8)


@pytest.mark.parametrize("length", [-1, 1])
def test_a_vector_of_another_length_is_refused(length: int) -> None:
    terms = terms_of(["quantise:8"])
    with pytest.raises(CodecError, match="than its model"):
        bytes_of(np.zeros(terms.manifest.parameters + length, np.float32), terms)


@pytest.mark.parametrize("listed", LISTS, ids="+".join)
def test_bytes_too_many_or_too_few_are_refused(listed: list[str]) -> None:
    terms = terms_of(listed)
    data = bytes_of(vector_of(terms), terms)
    with pytest.raises(CodecError):
        decoded(data + b"\0", terms)
    with pytest.raises(CodecError):
        decoded(data[:-1], terms)
    with pytest.raises(CodecError):
        decoded(b"", terms)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    terms = terms_of(["quantise:8"], ((3,),))
    data = np.array([scale], "<f4").tobytes() + bytes([1, 2, 3])
    with pytest.raises(CodecError, match="scale"):
        decoded(data, terms)


def test_a_level_that_is_none_of_the_studys_is_refused() -> None:
    terms = terms_of(["quantise:8"], ((3,),))
    with pytest.raises(CodecError, match="level"):
        decoded(np.array([1.0], "<f4").tobytes() + bytes([1, 2, 255]), terms)


@settings(max_examples=300)
@given(st.sampled_from(LISTS), st.booleans(), st.binary(max_size=400))
def test_any_bytes_are_refused_or_give_a_finite_vector_of_the_model(
    listed: list[str], feedback: bool, data: bytes
) -> None:
    terms = terms_of(listed, feedback=feedback)
    try:
        vector = decoded(data, terms)
    except CodecError:
        return
    assert vector.size == terms.manifest.parameters
    assert np.isfinite(vector).all()
    assert len(data) <= terms.most_bytes


@settings(max_examples=300)
@given(st.sampled_from(LISTS), st.integers(0, 2**31), st.integers(0, 2**31))
def test_one_damaged_bit_is_refused_or_gives_a_finite_vector(listed: list[str], place: int, seed: int) -> None:
    terms = terms_of(listed)
    data = bytearray(bytes_of(vector_of(terms, seed), terms))
    data[place // 8 % len(data)] ^= 1 << (place % 8)
    try:
        assert np.isfinite(decoded(bytes(data), terms)).all()
    except CodecError:
        return
