"""Histograms of figures as vectors: sums of vectors are sums of counts, and only the study's own histograms travel."""

import numpy as np
import pytest

from protocol.errors import MaskingError
from protocol.metrics import geometric_variance
from protocol.secure_aggregation.histograms import (
    masked_words,
    opened_values,
    sums_histograms,
    vector_length,
    words_of,
)
from protocol.study import StudySpec, parse_study
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import ValueHistogram, merge_values, value_terms

SPLITS: tuple[HeldOutSplit, ...] = ("test", "validation")


def study_of(noise_epsilon: float | None = None, classes: int = 3) -> StudySpec:
    return parse_study(
        {
            "name": "masks",
            "kind": "segmentation",
            "label": {"classes": [f"c{number}" for number in range(classes)]},
            "network": {"name": "unet"},
            "rounds": 1,
            "participants": {"minimum_sites": 4},
            "privacy": {"epsilon": None},
            "evaluation": {"noise_epsilon": noise_epsilon},
        }
    )


def counted(study: StudySpec, seed: int, patients: int = 6) -> dict[HeldOutSplit, list[ValueHistogram]]:
    generator = np.random.default_rng(seed)
    return {
        split: [empty.of(generator.uniform(size=patients)) for empty in value_terms(study).empty] for split in SPLITS
    }


def test_the_sum_of_vectors_is_the_merge_of_histograms() -> None:
    study = study_of()
    sites = [counted(study, seed) for seed in range(4)]
    vectors = [words_of(masked_words(study, site, [])) for site in sites]
    assert sums_histograms(study)
    assert {vector.size for vector in vectors} == {vector_length(study)}
    assert opened_values(study, vectors, []) == {
        split: merge_values([site[split] for site in sites]) for split in SPLITS
    }


def test_the_variance_of_a_sum_follows_from_the_study_and_the_number_of_sites() -> None:
    study = study_of(noise_epsilon=1.0)
    vectors = [words_of(masked_words(study, counted(study, seed), [])) for seed in range(4)]
    opened = opened_values(study, vectors, [])
    variances = [histogram.noise_variance for own in opened.values() for histogram in own]
    assert variances == pytest.approx([4 * geometric_variance(0.5)] * 4)


@pytest.mark.parametrize("noise_epsilon", [None, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 64])
def test_a_vector_is_cut_into_whole_pieces_that_a_message_holds(classes: int, noise_epsilon: float | None) -> None:
    study = study_of(noise_epsilon, classes)
    pieces = masked_words(study, counted(study, 0, patients=1), [])
    assert {len(piece) for piece in pieces} == {512}
    assert len(pieces) <= 1024


def test_other_histograms_than_the_study_s_are_refused() -> None:
    study = study_of()
    own = counted(study, 0)
    one_split: dict[HeldOutSplit, list[ValueHistogram]] = {"test": own["test"]}
    one_class = own | {"test": own["test"][:1]}
    for wrong in (one_split, one_class, counted(study_of(1.0), 0)):
        with pytest.raises(MaskingError, match="not those of the study"):
            masked_words(study, wrong, [])
