"""What a site hands over after a round's training, by the study's mechanism of privacy.

    dp-sgd        the difference of weights; the noise came in every step
    site-level    the difference, cut and noised as a whole, and a noised bit
    shared-noise  one step's clipped sum as integers, with a share of the noise; it goes under masks

Each is a line of the table at the end; the job does not ask which.
"""

from collections.abc import Callable

from site_node.training.local_round import ROUND_PASS, Round, train_locally
from site_node.training.shared_noise import noised_step
from site_node.training.site_level import train_and_release
from site_node.update.steps import Payload, Rounding, integers_payload, update_payload


def round_output(training: Round) -> tuple[Payload, float | None]:
    """Train a round and return the payload, with the noised bit where the mechanism has one."""
    return _OUTPUTS[training.study.privacy.mechanism](training)


def _local(training: Round) -> tuple[Payload, float | None]:
    return update_payload(training.study, train_locally(training), _rounding(training)), None


def _site_level(training: Round) -> tuple[Payload, float | None]:
    released = train_and_release(
        training.study,
        training.base,
        training.patients,
        training.noise,
        noise_multiplier=training.order.noise_multiplier,
        update_norm=training.order.update_norm,
        round_number=training.order.round,
        checkpoint=training.checkpoint(ROUND_PASS, training.base),
        report=training.report,
    )
    return update_payload(training.study, released.update, _rounding(training)), released.uncut


def _shared_noise(training: Round) -> tuple[Payload, float | None]:
    integers = noised_step(
        training.study,
        training.base,
        training.patients,
        training.noise,
        noise_multiplier=training.order.noise_multiplier,
    )
    training.report(1.0)
    return integers_payload(training.base, integers), None


def _rounding(training: Round) -> Rounding:
    patients, draws = training.patients.public_figure, training.noise.rounding.halves
    return Rounding(patients, draws, training.order.round, training.state)


_OUTPUTS: dict[str, Callable[[Round], tuple[Payload, float | None]]] = {
    "dp-sgd": _local,
    "site-level": _site_level,
    "shared-noise": _shared_noise,
}
