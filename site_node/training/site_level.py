"""A round under site-level privacy: ordinary local training, whose whole update is cut and noised at the end.

No patient's gradient is clipped or noised here; the one release is. So whether training diverged may not be told
either: an update that is not finite counts as none.
"""

from protocol.study import StudySpec
from protocol.tensors import Weights
from site_node.errors import NotFiniteError, OrderError
from site_node.privacy.noise import NoiseSource
from site_node.privacy.site_level import Released, release_update
from site_node.training.checkpoints import PassCheckpoint
from site_node.training.prepared_patients import PreparedPatients
from site_node.training.trainer import Report, train
from site_node.update.steps import difference


def train_and_release(
    study: StudySpec,
    base: Weights,
    patients: PreparedPatients,
    noise: NoiseSource,
    *,
    noise_multiplier: float | None,
    update_norm: float | None,
    round_number: int,
    checkpoint: PassCheckpoint | None = None,
    report: Report = lambda fraction: None,
) -> Released:
    """Train a round without noise and return the update cut to this length and noised, with its noised bit.

    A training that was killed goes on from its checkpoint, which holds what no noise protects yet.
    Raises: OrderError if the order lacks noise or length; what `train` raises, but for NotFiniteError.
    """
    if study.privacy.mechanism != "site-level" or noise_multiplier is None or update_norm is None:
        raise OrderError("The order's noise does not fit the study's privacy terms.", "The gate refuses such a task.")
    try:
        trained = train(
            study,
            base,
            patients,
            noise,
            noise_multiplier=None,
            round_number=round_number,
            checkpoint=checkpoint,
            report=report,
        )
    except NotFiniteError:
        trained = base
    return release_update(difference(base, trained), study.privacy, noise_multiplier, update_norm, noise.gradients)
