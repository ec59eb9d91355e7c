"""Small studies, patients and networks that the tests of training and privacy share."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from protocol.study import StudySpec, parse_study
from site_node.privacy.clipping import PatientBatch
from site_node.privacy.noise import NoiseSource
from site_node.training.prepared_patients import PreparedPatients

TASK = "sha256:" + "1" * 64
COHORT = "sha256:" + "2" * 64
SMALLEST: dict[str, dict[str, Any]] = {
    "convnet": {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 2, "groups": 2},
    "densenet": {"init_features": 4, "growth_rate": 4, "block_config": [1, 1], "groups": 2},
    "resnet": {"planes": [4, 4, 8, 8], "first_kernel": 3, "first_stride": 1, "max_pool": False, "groups": 2},
}


def make_study(
    network: str = "convnet",
    size: Sequence[int] = (16, 16),
    epsilon: float | None = 8.0,
    *,
    normalisation: str = "group",
    arguments: dict[str, Any] | None = None,
    augmentation: str = "none",
    **training: Any,
) -> StudySpec:
    """Return a legal study with small defaults; further arguments are `training`'s."""
    return parse_study(
        {
            "name": "small",
            "seed": 3,
            "label": {"classes": ["no", "yes"]},
            "preprocessing": {"size": list(size), "augmentation": augmentation},
            "network": {
                "name": network,
                "normalisation": normalisation,
                "arguments": SMALLEST.get(network, {}) if arguments is None else arguments,
            },
            "training": {"local_steps": 2, "sampling_rate": 0.5, **training},
            "rounds": 2,
            "participants": {"training_patients": 100},
            "privacy": {"epsilon": epsilon, "delta": 1e-4},
        }
    )


def make_noise(task: str = TASK, cohort: str = COHORT, key: bytes = b"k" * 32) -> NoiseSource:
    """Return a noise source with a known key, as only tests and the simulator have."""
    return NoiseSource(key, task, cohort)


def make_patients(images_of_each: Sequence[int], size: Sequence[int] = (16, 16), seed: int = 0) -> PreparedPatients:
    """Return made-up patients; a positive one's images are brighter in the first half of the rows."""
    generator = np.random.default_rng(seed)
    labels = np.arange(len(images_of_each)) % 2
    targets = np.repeat(labels, images_of_each)
    images = generator.normal(size=(len(targets), 1, *size))
    images[targets == 1, :, : size[0] // 2] += 1.5
    return PreparedPatients(
        images=images.astype(np.float16),
        rows=np.arange(len(targets)),
        targets=targets.astype(np.float32),
        first_image=np.cumsum([0, *images_of_each]),
        labels=labels.astype(np.int64),
    )


def pixels(patients: PreparedPatients) -> NDArray[np.float16]:
    """Return the images of made-up patients, which lie in memory and can be changed."""
    assert isinstance(patients.images, np.ndarray)
    return cast("NDArray[np.float16]", patients.images)


def make_batch(images_of_each: Sequence[int], size: Sequence[int] = (16, 16), seed: int = 0) -> PatientBatch:
    """Return all images of made-up patients as one batch."""
    patients = make_patients(images_of_each, size, seed)
    return patients.batch([patients.images_of(number) for number in range(patients.patients)], torch.device("cpu"))
