"""Held-out counts as vectors under masks: exact sums, signs, bounds, and how finely scores are told apart."""

from typing import Any

import numpy as np
import pytest

from protocol.errors import MaskingError, SpecificationError
from protocol.metrics import BINS, MASKED_BINS, NOISED_BINS, ScoreHistograms, merge, noise_variance_of, summarise
from protocol.secure_aggregation.histograms import (
    BOUND,
    RING,
    bins_of,
    masked_words,
    opened_histograms,
    sums_histograms,
    vector_length,
    words_of,
)
from protocol.secure_messages import MOST_MEMBERS, MOST_PIECES, WORDS_OF_A_PIECE
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from tests.fakes.handing_site import masked_study

SPLITS: tuple[HeldOutSplit, ...] = ("test", "validation")


def counts(study: StudySpec, seed: int, least: int = 0) -> dict[HeldOutSplit, ScoreHistograms]:
    rng = np.random.default_rng(seed)
    sides = [rng.integers(least, 4, bins_of(study)) for _ in range(4)]
    return {split: ScoreHistograms.from_counts(sides[2 * n], sides[2 * n + 1]) for n, split in enumerate(SPLITS)}


@pytest.mark.parametrize("noise", [None, 0.5])
def test_the_sum_of_vectors_is_the_merge_of_histograms(noise: float | None) -> None:
    study = masked_study(5, evaluation={"noise_epsilon": noise})
    assert bins_of(study) == (MASKED_BINS if noise is None else NOISED_BINS)
    sites = [counts(study, seed, 0 if noise is None else -4) for seed in range(5)]
    vectors = [words_of(masked_words(study, site, [])) for site in sites]
    opened = opened_histograms(study, vectors, [])
    for split in SPLITS:
        expected, (found,) = merge([site[split] for site in sites]), opened[split]
        assert (found.negative, found.positive) == (expected.negative, expected.positive)
        assert (found.noise_variance > 0) == (noise is not None)


@pytest.mark.parametrize("noise", [None, 0.5])
def test_the_sum_of_vectors_of_several_classes_is_the_merge_class_by_class(noise: float | None) -> None:
    study = masked_study(5, evaluation={"noise_epsilon": noise}, label={"classes": ["a", "b", "c"]})
    least = 0 if noise is None else -4
    sites = [
        {split: [counts(study, 10 * seed + place, least)[split] for place in range(3)] for split in SPLITS}
        for seed in range(5)
    ]
    opened = opened_histograms(study, [words_of(masked_words(study, site, [])) for site in sites], [])
    for split in SPLITS:
        for place, found in enumerate(opened[split]):
            expected = merge([site[split][place] for site in sites])
            assert (found.negative, found.positive) == (expected.negative, expected.positive)
            assert found.noise_variance == noise_variance_of(None if noise is None else noise / 3, 5)
    with pytest.raises(MaskingError, match="not those of the study"):
        masked_words(study, {split: site[:2] for split, site in sites[0].items()}, [])


PLAIN: dict[str, Any] = {"secure_aggregation": {"method": "none"}}
ENCRYPTED: dict[str, Any] = {"secure_aggregation": {"method": "homomorphic", "maximum_sites": 8, "maximum_weight": 9}}
SUMMED: dict[str, Any] = {**PLAIN, "evaluation": {"sum_under_masks": True}}
SINGLE: dict[str, Any] = {**PLAIN, "evaluation": {"sum_under_masks": False}}
FEW: dict[str, Any] = {**PLAIN, "participants": {"minimum_sites": 3}}
BUFFERED: dict[str, Any] = {**PLAIN, "pace": {"mode": "buffered", "buffer": 3}}


@pytest.mark.parametrize(
    ("terms", "summed"),
    [({}, True), (ENCRYPTED, True), (PLAIN, True), (SUMMED, True), (SINGLE, False), (FEW, False), (BUFFERED, False)],
)
def test_counts_are_summed_under_masks_where_updates_are_hidden_or_the_study_says_so(
    terms: dict[str, Any], summed: bool
) -> None:
    study = masked_study(5, **terms)
    assert sums_histograms(study) is summed
    assert bins_of(study) == (MASKED_BINS if summed else BINS)


def test_a_sum_of_too_few_or_of_overlapping_judgings_is_refused_when_the_study_is_written() -> None:
    with pytest.raises(SpecificationError, match=r"sum_under_masks: participants.minimum_sites 3 is below 4"):
        masked_study(5, **SUMMED, participants={"minimum_sites": 3})
    with pytest.raises(SpecificationError, match="judged while others are made"):
        masked_study(5, **SUMMED, pace={"mode": "buffered", "buffer": 2})


def test_a_vector_fits_its_message_whatever_the_study() -> None:
    for noise in (None, 1.0):
        study = masked_study(5, evaluation={"noise_epsilon": noise})
        pieces = masked_words(study, counts(study, 1), [])
        assert len(pieces) * WORDS_OF_A_PIECE == vector_length(study)
        assert len(pieces) <= MOST_PIECES
        assert {len(piece) for piece in pieces} == {512}


def test_the_ring_holds_the_largest_counts_of_the_most_sites() -> None:
    assert RING.largest >= BOUND * MOST_MEMBERS


def test_sums_that_cannot_be_are_refused() -> None:
    study = masked_study(5)
    vector = words_of(masked_words(study, counts(study, 1), []))
    chance = np.random.default_rng(2).integers(0, 1 << 32, vector.size, dtype=np.uint64).astype(RING.dtype)
    below = RING.encode(np.full(vector.size, -1))
    for vectors in ([chance], [below], [vector[:-1]], []):
        with pytest.raises(MaskingError):
            opened_histograms(study, vectors, [])


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
def test_the_bins_move_an_auc_by_less_than_two_thousandths(spread: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    logits = rng.normal(spread * labels, spread)
    fine = ScoreHistograms.from_scores(1 / (1 + np.exp(-logits)), labels)
    coarse = ScoreHistograms.from_scores(1 / (1 + np.exp(-logits)), labels, MASKED_BINS)
    exact = (logits[labels == 1][:, None] > logits[labels == 0][None, :]).mean()
    assert summarise(coarse).auc == pytest.approx(exact, abs=0.002)
    assert summarise(fine).auc == pytest.approx(exact, abs=0.002)
