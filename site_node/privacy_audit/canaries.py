"""Canaries: made-up patients, each included in the training by a coin of its own, whom nobody would miss.

A canary is one image of white noise with a random label. Such images are unlike each other and unlike radiographs, and
their labels can only be learnt by heart, so that a training that remembers anybody remembers them: the worst case that
a guarantee for every patient must cover.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.study import StudySpec
from site_node.training.prepared_patients import PreparedPatients

CANARIES, COINS, PATIENTS = 0, 1, 2
"""What a seed draws; each has a generator of its own."""


@dataclass(frozen=True)
class Canaries:
    """Made-up patients and the outcome of their coins.

    Shapes: images (canary, 1, *size) float16, each of mean 0 and deviation 1; labels (canary,) int64; included
        (canary,) bool.
    """

    images: NDArray[np.float16]
    labels: NDArray[np.int64]
    included: NDArray[np.bool_]

    @property
    def number(self) -> int:
        """Return how many canaries there are, included or not."""
        return len(self.labels)


def make_canaries(study: StudySpec, number: int, seed: int) -> Canaries:
    """Return canaries of a study's image size. The same seed gives the same canaries and the same coins."""
    generator = np.random.default_rng([seed, CANARIES])
    images = _standardised(generator.normal(size=(number, 1, *study.preprocessing.size)))
    labels = generator.integers(0, 2, number)
    included = np.random.default_rng([seed, COINS]).integers(0, 2, number).astype(bool)
    return Canaries(images, labels, included)


def make_patients(study: StudySpec, number: int, seed: int) -> PreparedPatients:
    """Return patients with one made-up image each, brighter in the upper half if positive, for an audit without any."""
    generator = np.random.default_rng([seed, PATIENTS])
    labels = generator.integers(0, 2, number)
    images = generator.normal(size=(number, 1, *study.preprocessing.size))
    images[labels == 1, :, : study.preprocessing.size[0] // 2] += 1.0
    return _one_image_each(_standardised(images), labels)


def with_canaries(patients: PreparedPatients, canaries: Canaries) -> PreparedPatients:
    """Return the patients and, after them, the canaries whose coin said so."""
    images = canaries.images[canaries.included]
    labels = canaries.labels[canaries.included]
    return PreparedPatients(
        images=np.concatenate([np.asarray(patients.images[patients.rows]), images]),
        rows=np.arange(len(patients.rows) + len(labels)),
        targets=np.concatenate([patients.targets, labels.astype(np.float32)]),
        first_image=np.concatenate([patients.first_image, patients.first_image[-1] + 1 + np.arange(len(labels))]),
        labels=np.concatenate([patients.labels, labels]),
    )


def _standardised(images: NDArray[np.float64]) -> NDArray[np.float16]:
    axes = tuple(range(1, images.ndim))
    centred = images - images.mean(axes, keepdims=True)
    return np.asarray(centred / centred.std(axes, keepdims=True), np.float16)


def _one_image_each(images: NDArray[np.float16], labels: NDArray[np.int64]) -> PreparedPatients:
    return PreparedPatients(
        images=images,
        rows=np.arange(len(labels)),
        targets=labels.astype(np.float32),
        first_image=np.arange(len(labels) + 1),
        labels=labels,
    )
