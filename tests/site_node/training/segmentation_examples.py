"""Small segmentation studies and patients with masks, for the tests of training and privacy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from protocol.study import StudySpec, parse_study
from site_node.training.prepared_patients import PreparedPatients

SMALLEST_OF_MASKS: dict[str, dict[str, Any]] = {
    "unet": {"channels": [4, 8], "strides": [2], "groups": 2},
    "segresnet": {"init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1], "groups": 2},
    "swinunetr": {"window": 2},
}


def make_segmentation(
    network: str = "unet",
    size: Sequence[int] = (16, 16),
    epsilon: float | None = None,
    *,
    classes: Sequence[str] = ("background", "tumour"),
    normalisation: str = "group",
    **parts: Any,
) -> StudySpec:
    """Return a legal study; further arguments are whole parts of it."""
    return parse_study(
        {
            "name": "masks",
            "kind": "segmentation",
            "label": {"classes": list(classes)},
            "preprocessing": {"size": list(size), "augmentation": "none"},
            "network": {"name": network, "normalisation": normalisation, "arguments": SMALLEST_OF_MASKS[network]},
            "training": {"local_steps": 2, "sampling_rate": 0.5},
            "rounds": 2,
            "participants": {"training_patients": 100},
            "privacy": {"epsilon": epsilon, "delta": 1e-4},
            **parts,
        }
    )


def make_drawn(images_of_each: Sequence[int], size: Sequence[int] = (16, 16), seed: int = 0) -> PreparedPatients:
    """Return made-up patients: a bright box at a place of its own in each image, and the box as its mask."""
    generator = np.random.default_rng(seed)
    number = sum(images_of_each)
    images = generator.normal(size=(number, 1, *size))
    masks = np.zeros((number, *size), np.uint8)
    for image in range(number):
        corner = [int(generator.integers(0, edge // 2)) for edge in size]
        box = tuple(slice(first, first + edge // 3) for first, edge in zip(corner, size, strict=True))
        masks[image][box] = 1
    images[:, 0] += 3.0 * masks
    return PreparedPatients(
        images=images.astype(np.float16),
        rows=np.arange(number),
        targets=np.empty((number, 0), np.float32),
        first_image=np.cumsum([0, *images_of_each]),
        labels=np.zeros(len(images_of_each), np.int64),
        masks=masks,
    )
