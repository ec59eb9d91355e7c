"""Masked files to the mean: exact for any windows, and refused if the masks do not cancel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hub.aggregation import unmasking
from hub.aggregation.unmasking import MaskedSum, integer_sums, store_mean
from hub.errors import AggregationError
from hub.registry.blobs import BlobStore
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.masking import Opening, masks_on_sum
from protocol.secure_aggregation.vector import VectorTerms, vector_terms, weight_digits
from protocol.study import StudySpec
from protocol.tensors import decode_weights, encode_weights
from tests.protocol.secure_aggregation.members import masked, members_of, roster_for, shares_of
from tests.protocol.secure_aggregation.test_vector import study_of

VALUES = 5000
WEIGHTS = (3, 100, 40, 7, 21)


def integers(terms: VectorTerms) -> list[NDArray[np.int64]]:
    draws = np.random.default_rng(3)
    return [draws.integers(-terms.bound, terms.bound + 1, VALUES) for _ in WEIGHTS]


def masked_sum(
    blobs: BlobStore, study: StudySpec, values: Sequence[NDArray[np.int64]], survivors: int = 5, **changes: Any
) -> MaskedSum:
    """Store the survivors' vectors and return what their sum is made from."""
    terms, members = vector_terms(study, VALUES), members_of(len(values))
    roster, there = roster_for(members), members[:survivors]
    names = [member.name for member in there]
    stored = []
    for member, own, weight in zip(there, values, WEIGHTS, strict=False):
        vector = np.concatenate([weight_digits(weight, terms.ring), terms.ring.encode(own)])
        stored.append(blobs.put(masked(roster, members, member, vector, terms.ring).tobytes()))
    opening = Opening(
        members=tuple(member.name for member in members),
        survivors=tuple(names),
        seed_shares={member.name: shares_of(roster, member.seed, names) for member in there},
        key_shares={member.name: shares_of(roster, member.mask, names) for member in members[survivors:]},
    )
    base = blobs.put(encode_weights({"w": np.zeros(VALUES, np.float32)}))
    fields: dict[str, Any] = {"blobs": tuple(stored), "opening": opening, **changes}
    return MaskedSum(study=study, base=base, roster=roster, **fields)


@pytest.mark.parametrize("window_bytes", [64, 3000, 1 << 20])
@pytest.mark.parametrize("value_bits", [None, 16])
@pytest.mark.parametrize("survivors", [5, 4])
def test_the_mean_is_that_of_the_plain_integers_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int, value_bits: int | None, survivors: int
) -> None:
    monkeypatch.setattr(unmasking, "WINDOW_BYTES", window_bytes)
    secure = {"method": "masking", "maximum_sites": 8, "maximum_weight": 100, "value_bits": value_bits}
    study, blobs = study_of(secure_aggregation=secure), BlobStore(tmp_path)
    terms = vector_terms(study, VALUES)
    assert terms.ring.bits == (16 if value_bits is None else 32)
    values = integers(terms)
    stored = store_mean(masked_sum(blobs, study, values, survivors), blobs)
    total = np.sum(values[:survivors], axis=0)
    expected = dequantise(total, terms.unit, terms.divisor(sum(WEIGHTS[:survivors])))
    assert np.array_equal(decode_weights(blobs.path(stored))["w"], expected)


def test_the_integers_themselves_come_back_exactly(tmp_path: Path) -> None:
    study, blobs = study_of(), BlobStore(tmp_path)
    terms = vector_terms(study, VALUES)
    values = integers(terms)
    work = masked_sum(blobs, study, values)
    digits, *windows = integer_sums(
        [blobs.path(digest) for digest in work.blobs], masks_on_sum(work.roster, work.opening), terms
    )
    assert sum(int(digit) << (4 * place) for place, digit in enumerate(digits)) == sum(WEIGHTS)
    assert np.array_equal(np.concatenate(windows), np.sum(values, axis=0))


def test_a_vector_that_was_masked_otherwise_is_noticed_and_not_counted(tmp_path: Path) -> None:
    study, blobs = study_of(), BlobStore(tmp_path)
    terms = vector_terms(study, VALUES)
    work = masked_sum(blobs, study, integers(terms))
    stranger = blobs.put(np.random.default_rng(1).integers(0, 2**16, terms.length).astype("<u2").tobytes())
    spoiled = MaskedSum(study, work.base, (*work.blobs[:-1], stranger), work.roster, work.opening)
    with pytest.raises(AggregationError, match="masks do not cancel"):
        store_mean(spoiled, blobs)


def test_a_missing_or_cut_vector_is_told(tmp_path: Path) -> None:
    study, blobs = study_of(), BlobStore(tmp_path)
    terms = vector_terms(study, VALUES)
    work = masked_sum(blobs, study, integers(terms))
    cut = blobs.put(b"short")
    for digest, words in ((cut, "not a vector"), ("sha256:" + "0" * 64, "missing")):
        spoiled = MaskedSum(study, work.base, (*work.blobs[:-1], digest), work.roster, work.opening)
        with pytest.raises(AggregationError, match=words):
            store_mean(spoiled, blobs)
