"""The studies that are audited when none is named. Their numbers are part of what the audits' documents report."""

from protocol.study import StudySpec, parse_study

PATIENTS = 100
"""Made-up patients beside the canaries, where no hospital's are audited."""


def small_study(epsilon: float | None) -> StudySpec:
    """Return a study for auditing the claim: a small network on small images, 6 rounds of 10 steps, rate 0.5."""
    return parse_study(
        {
            "name": "privacy-audit",
            "label": {"classes": ["dark above", "bright above"]},
            "preprocessing": {"size": [16, 16], "augmentation": "none"},
            "network": {
                "name": "convnet",
                "arguments": {"channels": [16, 16], "strides": [2, 2], "kernels": [3, 3], "head": 4, "groups": 4},
            },
            "training": {"local_steps": 10, "sampling_rate": 0.5, "learning_rate": 0.5},
            "rounds": 6,
            "participants": {"training_patients": PATIENTS},
            "privacy": {"epsilon": epsilon, "delta": 1e-5},
        }
    )


def chest_study(epsilon: float | None) -> StudySpec:
    """Return a study for rebuilding an image: the demo's privacy (12 rounds of 10 steps, rate 0.4), another network.

    Images have 64 x 64 pixels; the network is wider and shallower than the demo's, and its last layer sees all 16 x 16
    places that the convolutions leave: of those that a study may ask for, one that keeps much of a picture.
    """
    return parse_study(
        {
            "name": "inversion-audit",
            "label": {"classes": ["no finding", "pneumonia"]},
            "preprocessing": {"size": [64, 64], "augmentation": "none"},
            "network": {
                "name": "convnet",
                "arguments": {
                    "channels": [24, 24, 24],
                    "strides": [2, 2, 1],
                    "kernels": [5, 3, 3],
                    "head": 16,
                    "groups": 4,
                },
            },
            "training": {"local_steps": 10, "sampling_rate": 0.4, "learning_rate": 0.5},
            "rounds": 12,
            "participants": {"training_patients": 334},
            "privacy": {"epsilon": epsilon, "delta": 1e-4},
        }
    )
