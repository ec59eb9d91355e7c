"""Held-out counts as a vector: every bin of every split, in a fixed order, so that sums of vectors are sums of counts.

    split by split, in the order of their names:   negative (a word for each bin) | positive (a word for each bin)

A site without patients of a split sends zeros, noised like any other where the study asks for noise; so the vector's
length and the noise in the sum depend on the study and the number of survivors alone. Pure.

Overflow. A count lies within +-`BOUND` and at most `MOST_MEMBERS` vectors are added, which the ring holds: the sum
modulo 2^32 is the sum of the counts, and a noised count below zero comes out with its sign.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from protocol.errors import MaskingError
from protocol.metrics import BINS, MASKED_BINS, NOISED_BINS, Counts, ScoreHistograms, noise_variance_of
from protocol.secure_aggregation.masking import SignedMask, add_masks
from protocol.secure_aggregation.ring import Integers, Ring, Words
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.secure_messages import MOST_MEMBERS, WORDS_OF_A_PIECE
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit

RING = Ring(32)
BOUND = RING.largest // MOST_MEMBERS
"""The largest magnitude of one site's count in one bin, noise included."""


def sums_histograms(study: StudySpec) -> bool:
    """Tell whether a study's held-out counts leave under masks only: wherever updates do, else where it says so.

    Where it says nothing: with four sites or more, unless versions are judged while others are made, or patients are
    compared in pairs, of which there is no sum.
    """
    said = study.evaluation.sum_under_masks
    if study.secure_aggregation.method != "none":
        return True
    if said is not None:
        return said
    enough = study.participants.minimum_sites >= FEWEST_MEMBERS
    return enough and study.pace.mode == "synchronous" and not study.is_survival


def bins_of(study: StudySpec) -> int:
    """Return how many bins a study's histograms have."""
    if study.evaluation.noise_epsilon is not None:
        return NOISED_BINS
    return MASKED_BINS if sums_histograms(study) else BINS


def vector_length(study: StudySpec) -> int:
    """Return the words of a site's counts."""
    return 2 * bins_of(study) * len(_splits(study))


def masked_words(
    study: StudySpec, histograms: Mapping[HeldOutSplit, ScoreHistograms], masks: Sequence[SignedMask]
) -> list[str]:
    """Return a site's counts under its masks, in the pieces that travel.

    Raises: MaskingError if the splits or bins are not the study's, or a count is beyond the bound.
    """
    counts = _counts_of(study, histograms)
    if int(np.abs(counts).max(initial=0)) > BOUND:
        raise MaskingError(f"A histogram holds a count beyond {BOUND}.")
    data = add_masks(RING.encode(counts), masks, RING).tobytes()
    step = WORDS_OF_A_PIECE * RING.bytes_per_value
    return [data[start : start + step].hex() for start in range(0, len(data), step)]


def words_of(pieces: Sequence[str]) -> Words:
    """Return the words in the pieces that travelled."""
    return RING.from_bytes(bytes.fromhex("".join(pieces)))


def opened_histograms(
    study: StudySpec, vectors: Sequence[Words], masks: Sequence[SignedMask]
) -> dict[HeldOutSplit, ScoreHistograms]:
    """Return the survivors' summed histograms; `masks` are those that are to be added to the sum.

    Raises: MaskingError if a vector is of another length, or the sum cannot be one of so many sites' counts.
    """
    if not vectors or any(vector.size != vector_length(study) for vector in vectors):
        raise MaskingError("A vector of held-out counts is not of its study's length.")
    total = np.zeros(vector_length(study), RING.dtype)
    for vector in vectors:
        total += vector
    counts = RING.decode(add_masks(total, masks, RING))
    noised = study.evaluation.noise_epsilon is not None
    if int(np.abs(counts).max(initial=0)) > BOUND * len(vectors) or (not noised and int(counts.min()) < 0):
        raise MaskingError("The masks do not cancel: a vector or a share is not what its site should have sent.")
    return _histograms_of(study, counts, len(vectors))


def _splits(study: StudySpec) -> list[HeldOutSplit]:
    return sorted(set(study.evaluation.splits))


def _counts_of(study: StudySpec, histograms: Mapping[HeldOutSplit, ScoreHistograms]) -> Integers:
    if sorted(histograms) != _splits(study) or {h.bins for h in histograms.values()} != {bins_of(study)}:
        raise MaskingError("The histograms are not those of the study's held-out splits.")
    return np.concatenate([side for split in _splits(study) for side in histograms[split].dense()])


def _histograms_of(study: StudySpec, counts: Integers, sites: int) -> dict[HeldOutSplit, ScoreHistograms]:
    variance = noise_variance_of(study.evaluation.noise_epsilon, sites)
    sides: list[Counts] = np.split(counts, 2 * len(_splits(study)))
    return {
        split: ScoreHistograms.from_counts(sides[2 * place], sides[2 * place + 1], variance)
        for place, split in enumerate(_splits(study))
    }
