"""Held-out patients' figures as what leaves: one histogram for each kind of figure, noised as the study says."""

import numpy as np
from numpy.typing import NDArray

from protocol.study import StudySpec
from protocol.value_histograms import ValueHistogram, value_terms
from site_node.privacy.noise import NoiseSource


def noised_values(study: StudySpec, figures: NDArray[np.float64], noise: NoiseSource) -> list[ValueHistogram]:
    """Count patients' figures. Shapes: figures (patient, histogram).

    Guarantee: with noise, each histogram has its part of the study's epsilon, and every bin is noised.
    """
    terms = value_terms(study)
    exact = [empty.of(column) for column, empty in zip(figures.T, terms.empty, strict=True)]
    epsilon = terms.epsilon_each
    return exact if epsilon is None else [h.noised(epsilon, noise.histograms.two_sided_geometric) for h in exact]


def values_of_nobody(study: StudySpec, noise: NoiseSource) -> list[ValueHistogram]:
    """Return the histograms of a split that this site has no patients of, noised as the study says."""
    return noised_values(study, np.empty((0, len(value_terms(study).empty))), noise)
