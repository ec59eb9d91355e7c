"""Held-out counts as a vector: every bin of every split, in a fixed order, so that sums of vectors are sums of counts.

    split by split, in the order of their names; within a split class by class, where the study has several:
        negative (a word for each bin) | positive (a word for each bin)
    of figures (segmentation, regression) histogram by histogram a word for each bin

A site without patients of a split sends zeros, noised like any other where the study asks for noise; so the vector's
length and the noise in the sum depend on the study and the number of survivors alone. Pure.

Overflow. A count lies within +-`BOUND` and at most `MOST_MEMBERS` vectors are added, which the ring holds: the sum
modulo 2^32 is the sum of the counts, and a noised count below zero comes out with its sign.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from protocol.class_metrics import class_bins
from protocol.errors import MaskingError
from protocol.held_out import counts_field, epsilon_of_each, histograms_of_split
from protocol.metrics import BINS, MASKED_BINS, NOISED_BINS, Counts, ScoreHistograms, noise_variance_of
from protocol.secure_aggregation.masking import SignedMask, add_masks
from protocol.secure_aggregation.ring import Integers, Ring, Words
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.secure_messages import MOST_MEMBERS, WORDS_OF_A_PIECE
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import ValueHistogram, value_terms

RING = Ring(32)
SplitHistograms = (
    Mapping[HeldOutSplit, ScoreHistograms]
    | Mapping[HeldOutSplit, Sequence[ScoreHistograms]]
    | Mapping[HeldOutSplit, Sequence[ValueHistogram]]
)
"""Of each split one pair of histograms, or of several classes one for each; or a histogram for each figure."""
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
    if histograms_of_split(study) > 1:
        return class_bins(histograms_of_split(study))
    return MASKED_BINS if sums_histograms(study) else BINS


def vector_length(study: StudySpec) -> int:
    """Return the words of a site's counts."""
    if counts_field(study) == "values":
        return value_terms(study).bins * len(_splits(study))
    return 2 * bins_of(study) * histograms_of_split(study) * len(_splits(study))


def masked_words(study: StudySpec, histograms: SplitHistograms, masks: Sequence[SignedMask]) -> list[str]:
    """Return a site's counts under its masks, in the pieces that travel; of one class or several.

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
) -> dict[HeldOutSplit, list[ScoreHistograms]]:
    """Return the survivors' summed histograms, of each split one for each class.

    `masks` are those that are to be added to the sum.
    Raises: MaskingError if a vector is of another length, or the sum cannot be one of so many sites' counts.
    """
    return _histograms_of(study, _opened_counts(study, vectors, masks), len(vectors))


def opened_values(
    study: StudySpec, vectors: Sequence[Words], masks: Sequence[SignedMask]
) -> dict[HeldOutSplit, list[ValueHistogram]]:
    """Return the survivors' summed histograms of figures; as `opened_histograms`."""
    counts, terms = _opened_counts(study, vectors, masks), value_terms(study)
    variance, ends = terms.noise_variance(len(vectors)), np.cumsum([empty.bins for empty in terms.empty])[:-1]
    opened = {}
    for split, own in zip(_splits(study), np.split(counts, len(_splits(study))), strict=True):
        sides: list[Counts] = np.split(own, ends)
        opened[split] = [empty.with_counts(side, variance) for empty, side in zip(terms.empty, sides, strict=True)]
    return opened


def _opened_counts(study: StudySpec, vectors: Sequence[Words], masks: Sequence[SignedMask]) -> Integers:
    if not vectors or any(vector.size != vector_length(study) for vector in vectors):
        raise MaskingError("A vector of held-out counts is not of its study's length.")
    total = np.zeros(vector_length(study), RING.dtype)
    for vector in vectors:
        total += vector
    counts = RING.decode(add_masks(total, masks, RING))
    noised = study.evaluation.noise_epsilon is not None
    if int(np.abs(counts).max(initial=0)) > BOUND * len(vectors) or (not noised and int(counts.min()) < 0):
        raise MaskingError("The masks do not cancel: a vector or a share is not what its site should have sent.")
    return counts


def _splits(study: StudySpec) -> list[HeldOutSplit]:
    return sorted(set(study.evaluation.splits))


def _counts_of(study: StudySpec, histograms: SplitHistograms) -> Integers:
    if counts_field(study) == "values":
        return _counts_of_figures(study, histograms)
    found = {
        split: [one for one in _listed(own) if isinstance(one, ScoreHistograms)] for split, own in histograms.items()
    }
    fitting = all(len(own) == histograms_of_split(study) for own in found.values())
    bins = {one.bins for own in found.values() for one in own}
    if sorted(found) != _splits(study) or not fitting or bins != {bins_of(study)}:
        raise MaskingError("The histograms are not those of the study's held-out splits.")
    return np.concatenate([side for split in _splits(study) for one in found[split] for side in one.dense()])


def _counts_of_figures(study: StudySpec, histograms: SplitHistograms) -> Integers:
    empty = value_terms(study).empty
    found = {
        split: [one for one in _listed(own) if isinstance(one, ValueHistogram)] for split, own in histograms.items()
    }
    fitting = all(len(own) == len(empty) and all(map(ValueHistogram.counts_as, own, empty)) for own in found.values())
    if sorted(found) != _splits(study) or not fitting:
        raise MaskingError("The histograms are not those of the study's held-out splits.")
    return np.concatenate([one.dense() for split in _splits(study) for one in found[split]])


def _listed(
    own: ScoreHistograms | Sequence[ScoreHistograms] | Sequence[ValueHistogram],
) -> list[ScoreHistograms | ValueHistogram]:
    return [own] if isinstance(own, ScoreHistograms) else list(own)


def _histograms_of(study: StudySpec, counts: Integers, sites: int) -> dict[HeldOutSplit, list[ScoreHistograms]]:
    variance, each = noise_variance_of(epsilon_of_each(study), sites), histograms_of_split(study)
    sides: list[Counts] = np.split(counts, 2 * each * len(_splits(study)))
    pairs = [
        ScoreHistograms.from_counts(negative, positive, variance)
        for negative, positive in zip(sides[::2], sides[1::2], strict=True)
    ]
    return {split: pairs[place * each : (place + 1) * each] for place, split in enumerate(_splits(study))}
