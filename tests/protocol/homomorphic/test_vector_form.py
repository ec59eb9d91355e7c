"""The vector of a study, raised, encrypted, added, lowered: the words that masking would have opened."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.digest import digest_of
from protocol.errors import EncryptionError
from protocol.homomorphic.vector_form import form_of, in_pieces, lowered, raised
from protocol.secure_aggregation.ring import Ring, Words
from protocol.secure_aggregation.vector import WEIGHT_DIGITS, VectorTerms, weight_digits, weights_sum


def terms(bound: int = 127, sites: int = 8, bits: int = 16, values: int = 100) -> VectorTerms:
    return VectorTerms("quantised", Ring(bits), values, bound, 0.5 / bound, sites, maximum_weight=300)


def vector(seed: int, weight: int, of: VectorTerms) -> Words:
    values = np.random.default_rng(seed).choice([-of.bound, 0, 1, of.bound], of.values)
    return np.concatenate([weight_digits(weight, of.ring), of.ring.encode(values)])


def test_eight_sites_at_eight_bits_take_five_fields_a_slot() -> None:
    packing = form_of(terms(), digest_of("study"), 1, digest_of("key")).packing
    assert (packing.bits, packing.field_bits, packing.fields) == (8, 11, 5)


@settings(max_examples=40)
@given(st.integers(8, 4000), st.integers(4, 8), st.integers(0, 99), st.integers(1, 60))
def test_sums_of_raised_vectors_are_lowered_to_the_words_of_the_sum(
    bound: int, sites: int, seed: int, size: int
) -> None:
    of = terms(bound)
    vectors = [vector(seed + site, 1 + seed + site, of) for site in range(sites)]
    raised_vectors = [np.concatenate(list(raised(in_pieces([v], size), of))) for v in vectors]
    sums = np.asarray(np.sum(raised_vectors, axis=0, dtype=np.uint64))
    assert int(sums.max()) <= form_of(of, digest_of("study"), 1, digest_of("key")).packing.largest_sum
    words = np.concatenate(list(lowered(in_pieces([sums], size), of, sites)))
    np.testing.assert_array_equal(words, np.sum(vectors, axis=0, dtype=of.ring.dtype))
    assert weights_sum(words[:WEIGHT_DIGITS]) == sum(1 + seed + site for site in range(sites))


def test_a_word_beyond_its_bound_is_not_raised() -> None:
    of = terms()
    words = vector(1, 5, of)
    for value in (-128, 128):
        words[50] = of.ring.encode(np.array([value]))[0]
        with pytest.raises(EncryptionError, match="beyond its bound"):
            list(raised([words], of))


def test_a_sum_above_what_the_sites_can_have_sent_is_not_lowered() -> None:
    of = terms()
    sums = np.zeros(of.length, np.uint64)
    sums[-1] = 2 * 127 * 4
    list(lowered([sums], of, 4))
    sums[-1] += 1
    with pytest.raises(EncryptionError, match="above what 4 sites"):
        list(lowered([sums], of, 4))
    sums[-1], sums[0] = 0, 15 * 4 + 1
    with pytest.raises(EncryptionError, match="above what 4 sites"):
        list(lowered([sums], of, 4))


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 17))
def test_pieces_hold_the_same_words_whatever_parts_they_came_in(sizes: list[int], size: int) -> None:
    whole = np.arange(sum(sizes), dtype=np.uint16)
    parts = np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
    pieces = list(in_pieces(parts, size))
    assert [piece.size for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
    joined = np.concatenate(pieces) if pieces else np.array([], np.uint16)
    np.testing.assert_array_equal(joined, whole)
