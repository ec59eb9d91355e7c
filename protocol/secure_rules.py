"""What a study with secure aggregation may not ask for: each rule with its reason and remedy. Pure.

Called by `study_rules.py`.
"""

from protocol.homomorphic.parameters import PARAMETERS
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.secure_aggregation.vector import FEWEST_LEVELS, levels_of
from protocol.strategy_rules import NEEDS
from protocol.study import StudySpec


def secure_problems(study: StudySpec) -> list[str | None]:
    """Return one sentence for each rule that a study with secure aggregation breaks."""
    terms = study.secure_aggregation
    if terms.method == "none":
        return [_judges(study)]
    found = [_sites(study)]
    if terms.method == "homomorphic" and (terms.maximum_sites or 0) > PARAMETERS.most_summands:
        found.append(
            f"secure_aggregation.maximum_sites: {terms.maximum_sites} ciphertexts cannot be added without error; at "
            f"most {PARAMETERS.most_summands} can. Lower it, or set secure_aggregation.method: masking."
        )
    found += _single_updates(study)
    if study.strategy.weighting == "patients" and terms.maximum_weight is None:
        found.append(
            "secure_aggregation.maximum_weight: required with strategy.weighting: patients, because each site "
            "multiplies its update before it is summed. State the largest number of training patients that counts, "
            "or set strategy.weighting: equal."
        )
    quantised = study.privacy.mechanism != "shared-noise"  # which makes its own integers
    if terms.maximum_sites is not None and quantised:
        found.append(_levels(study))
    return found


def _single_updates(study: StudySpec) -> list[str | None]:
    """Return what asks for single updates: robust joinings, and whatever needs each update's length."""
    terms = study.strategy
    asked = {
        "strategy.name: 'fedexp'": terms.name == "fedexp",
        "strategy.norm_limit:": terms.norm_limit is not None,
        "strategy.weighting: 'noise'": terms.weighting == "noise",
    }
    found: list[str | None] = [
        f"{term} needs the length of each update, and the hub sees their sum alone. Leave it out, or set "
        "secure_aggregation.method: none."
        for term, is_asked_for in asked.items()
        if is_asked_for
    ]
    if terms.join in NEEDS:
        found.append(
            f"strategy.join: {terms.join!r} compares single updates, which the hub cannot see here. Use 'mean', or set "
            "secure_aggregation.method: none."
        )
    return found


def _sites(study: StudySpec) -> str | None:
    most, fewest = study.secure_aggregation.maximum_sites, study.participants.minimum_sites
    if most is None:
        return (
            "secure_aggregation.maximum_sites: required, because the width of the sum depends on it. State the most "
            "sites that may train in a round."
        )
    if fewest < FEWEST_MEMBERS:
        return (
            f"participants.minimum_sites: {fewest} is below {FEWEST_MEMBERS}; the sum of fewer sites says too much of "
            f"each, and none may be lost. Set it to {FEWEST_MEMBERS} or more."
        )
    if fewest > most:
        return f"secure_aggregation.maximum_sites: {most} is below participants.minimum_sites {fewest}. Raise it."
    return None


def _judges(study: StudySpec) -> str | None:
    fewest = study.participants.minimum_sites
    if not study.evaluation.sum_under_masks:
        return None
    if study.pace.mode == "buffered":
        return (
            "evaluation.sum_under_masks: versions of a buffered study are judged while others are made, and a site "
            "keeps masks of one round at a time. Leave it out, or set pace.mode: synchronous."
        )
    if fewest >= FEWEST_MEMBERS:
        return None
    return (
        f"evaluation.sum_under_masks: participants.minimum_sites {fewest} is below {FEWEST_MEMBERS}; the sum of fewer "
        f"sites' counts says too much of each, and none may be lost. Set minimum_sites to {FEWEST_MEMBERS} or more."
    )


def _levels(study: StudySpec) -> str | None:
    terms = study.secure_aggregation
    levels, most = levels_of(terms), terms.maximum_sites or 1
    if terms.value_bits is None and levels < FEWEST_LEVELS:
        return (
            f"secure_aggregation.value_bits: the sum of {most} sites leaves a value only {levels} levels in 16 bits. "
            "Set value_bits, 12 for example; the sum then has 32 bits."
        )
    return None
