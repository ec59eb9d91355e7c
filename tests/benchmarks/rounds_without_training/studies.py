"""The benchmark's study."""

from protocol.study import StudySpec, parse_study
from tests.benchmarks.rounds_without_training.job_name import PATIENTS

LONGEST_ROUND_SECONDS = 1800.0


def plain_study(name: str, sites: int, rounds: int) -> StudySpec:
    """Return a study under differential privacy, so that ledgers are charged; nothing is compressed or judged."""
    return parse_study(
        {
            "name": name,
            "cohort": {"modality": ["DX"], "minimum_patients": 1},
            "label": {"classes": ["no", "yes"]},
            "network": {"name": "convnet"},
            "training": {"local_steps": 10, "sampling_rate": 0.1},
            "rounds": rounds,
            "participants": {
                "minimum_sites": sites,
                "quorum": 1.0,
                "training_patients": sites * PATIENTS,
                "deadline_seconds": LONGEST_ROUND_SECONDS,
            },
            "privacy": {"epsilon": 8.0, "delta": 1e-5},
            "transport": {"upload": []},
            "evaluation": {"noise_epsilon": None},
        }
    )
