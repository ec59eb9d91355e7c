"""Held-out counts of a class, of several, or of findings: for each a pair of histograms, of who has it and who has not.

A patient is in one bin of the pair of every class, so that noise of epsilon in all is noise of epsilon / classes on
each pair (`protocol/held_out.py`).
"""

import numpy as np
from numpy.typing import NDArray

from protocol.held_out import epsilon_of_each, histograms_of_split
from protocol.metrics import ScoreHistograms
from protocol.secure_aggregation.histograms import bins_of
from protocol.study import StudySpec
from site_node.privacy.noise import NoiseSource


def class_histograms(
    study: StudySpec, scores: NDArray[np.float64], labels: NDArray[np.float32], noise: NoiseSource
) -> list[ScoreHistograms]:
    """Return a class's histograms after the other, noised as the study says.

    Shapes: scores in [0, 1] and labels (patient, class); a label is 0, 1, or NaN where it is not known.
    """
    exact = []
    for own_scores, own_labels in zip(scores.T, labels.T, strict=True):
        known = ~np.isnan(own_labels)
        counted = ScoreHistograms.from_scores(own_scores[known], own_labels[known].astype(np.int64), bins_of(study))
        exact.append(counted)
    return _noised(study, exact, noise)


def classes_of_nobody(study: StudySpec, noise: NoiseSource) -> list[ScoreHistograms]:
    """Return the histograms of a split that this site has no patients of, noised as the study says."""
    empty = ScoreHistograms(bins=bins_of(study), negative=[], positive=[])
    return _noised(study, [empty] * histograms_of_split(study), noise)


def _noised(study: StudySpec, exact: list[ScoreHistograms], noise: NoiseSource) -> list[ScoreHistograms]:
    epsilon = epsilon_of_each(study)
    if epsilon is None:
        return exact
    return [histograms.noised(epsilon, noise.histograms.two_sided_geometric) for histograms in exact]
