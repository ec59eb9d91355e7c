"""What each mechanism of privacy needs of a study: the rules of `privacy.mechanism`, with their reasons. Pure."""

from collections.abc import Callable

from protocol.errors import AccountingError
from protocol.shared_noise import shared_noise_of
from protocol.study import StudySpec

FEWEST_SITES_AS_UNITS = 10


def mechanism_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of the study's mechanism that it breaks."""
    mechanism, unit = study.privacy.mechanism, study.privacy.unit
    found: list[str] = []
    if (unit == "site") != (mechanism == "site-level"):
        found.append(
            "privacy.unit: 'site' goes with mechanism 'site-level', and 'patient' with the others, because that is "
            "whose data they hide. Change one of the two."
        )
    if mechanism != "dp-sgd" and study.privacy.epsilon is None:
        found.append(f"privacy.mechanism: {mechanism!r} is nothing without noise. State privacy.epsilon, or leave it.")
    rules = RULES.get(mechanism)
    return [*found, *rules(study)] if rules else found


def _shared_noise(study: StudySpec) -> list[str]:
    training, found = study.training, list[str]()
    if study.local_steps != 1:
        found.append(
            "training.local_steps: with 'shared-noise' every step is one sum over the sites, so it must be 1. "
            "Set it to 1 and let privacy's steps be `rounds`."
        )
    if training.optimizer != "sgd" or training.momentum or training.weight_decay:
        found.append(
            "training.optimizer: with 'shared-noise' the hub takes the steps, by plain gradient descent. "
            "Use sgd without momentum and weight_decay."
        )
    if study.secure_aggregation.method != "masking" or study.strategy.weighting != "patients":
        found.append(
            "secure_aggregation.method: a site's share of the noise protects nobody alone, and the sum is divided by "
            "the patients expected in it. Set it to masking, and strategy.weighting: patients."
        )
        return found
    try:
        shared_noise_of(study)
    except AccountingError as error:
        found.append(f"privacy.mechanism: {error}")
    return found


def _site_level(study: StudySpec) -> list[str]:
    found: list[str] = []
    if study.participants.minimum_sites < FEWEST_SITES_AS_UNITS:
        found.append(
            f"participants.minimum_sites: {study.participants.minimum_sites} is below {FEWEST_SITES_AS_UNITS}, and "
            "noise that hides a whole site among so few leaves nothing of the mean. Use 'dp-sgd', or more sites."
        )
    if study.strategy.weighting != "equal" or study.secure_aggregation.method != "none":
        found.append(
            "strategy.weighting: with 'site-level' every site's update is cut to one length and noised in full at the "
            "site, so that sites count alike. Set it to equal, and secure_aggregation.method to none."
        )
    if study.privacy.receipt_epsilon is not None:
        found.append(
            "privacy.receipt_epsilon: with 'site-level' privacy.epsilon hides a whole site, and a receipt's noise one "
            "patient of it, so that each round would tell what the study promises to hide. Leave it out."
        )
    return found


RULES: dict[str, Callable[[StudySpec], list[str]]] = {"shared-noise": _shared_noise, "site-level": _site_level}
