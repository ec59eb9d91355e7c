"""What a study may not ask of hospitals' own learning rates. Pure; each rule with its reason and remedy.

Called by `study_rules.py`.
"""

from protocol.compression.steps import parse_steps
from protocol.errors import CodecError
from protocol.study import StudySpec


def site_rate_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of `site_rates` that the study breaks."""
    terms = study.site_rates
    found = _quality(study)
    if terms.adapt == "none":
        return found
    if terms.from_round > study.rounds:
        found.append(
            f"site_rates.from_round: {terms.from_round} is above the study's {study.rounds} rounds, so that no factor "
            "would be used. Lower it, or set site_rates.adapt: none."
        )
    if study.privacy.mechanism != "dp-sgd":
        found.append(
            f"site_rates.adapt: with {study.privacy.mechanism!r} a hospital's own learning rate is undone, because the "
            "hub takes the steps or every update is cut to one length. Use privacy.mechanism: dp-sgd, or adapt: "
            "none."
        )
    return [*found, *_updates(study), *_readers_of_the_rate(study)]


def _updates(study: StudySpec) -> list[str]:
    found: list[str] = []
    if not study.site_rates.reads_updates:
        return found
    if study.secure_aggregation.method != "none":
        found.append(
            f"site_rates.adapt: {study.site_rates.adapt!r} compares single updates, which the hub cannot see with "
            "secure aggregation. Set it to quality, or secure_aggregation.method to none."
        )
    if _sends_other_places_each_round(study):
        found.append(
            f"site_rates.adapt: {study.site_rates.adapt!r} looks at each update beside the site's last one, and "
            "random-k sends other places in each round, so that two have next to none in common. Choose another step "
            "in transport.upload, or adapt: quality."
        )
    return found


def _sends_other_places_each_round(study: StudySpec) -> bool:
    try:
        return parse_steps(study.transport.upload).sparsifier == "random-k"
    except CodecError:
        return False  # `transport_rules.py` says what is wrong with the list


def _readers_of_the_rate(study: StudySpec) -> list[str]:
    """Refuse what works out an update's noise or mean gradient from the study's one learning rate."""
    found: list[str] = []
    strategy, private = study.strategy, study.privacy.epsilon is not None
    if strategy.name == "scaffold":
        found.append(
            "site_rates.adapt: SCAFFOLD's control variates are mean gradients, read off updates by one learning rate "
            "for all. Set it to none, or choose another strategy.name."
        )
    if private and (strategy.weighting == "noise" or strategy.name == "fedexp"):
        found.append(
            "site_rates.adapt: strategy.weighting: noise and fedexp work out an update's noise from one learning rate "
            "for all. Set it to none, or choose another weighting and strategy.name."
        )
    return found


def _quality(study: StudySpec) -> list[str]:
    terms, epsilon = study.site_rates, study.privacy.epsilon
    if terms.quality_epsilon is None:
        if not terms.reads_quality:
            return []
        return [
            "site_rates.quality_epsilon: required, also without privacy.epsilon, because the quality figures are "
            "counts of training patients and leave noised only. State a part of privacy.epsilon, a tenth of it for "
            "example; without that, 0.5."
        ]
    if not terms.reads_quality:
        return [
            "site_rates.quality_epsilon: there is nothing to noise: the study reads no quality figures. Leave it out."
        ]
    if epsilon is not None and terms.quality_epsilon > epsilon / 2:
        return [
            f"site_rates.quality_epsilon: {terms.quality_epsilon:g} leaves less than half of privacy.epsilon "
            f"{epsilon:g} to training. Lower it to at most {epsilon / 2:g}."
        ]
    return []
