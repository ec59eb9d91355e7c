"""What a study with secure aggregation may not ask for: each rule with its reason and remedy. Pure.

`problems_by_name` is asked by `parse_study` before anything is validated: what it knows by name no version trains yet,
and "unknown name" would send the author looking for another spelling. The rest is called by `study_rules.py`.
"""

from collections.abc import Mapping
from typing import Any

from protocol.homomorphic.parameters import PARAMETERS
from protocol.secure_aggregation.roster import FEWEST_MEMBERS
from protocol.secure_aggregation.vector import FEWEST_LEVELS, levels_of
from protocol.study import StudySpec

NEEDS_EACH_UPDATE = frozenset({"median", "trimmed-mean", "krum", "multi-krum", "geometric-median"})
"""Joinings that look at single updates: robust aggregation."""
BUFFERED = frozenset({"fedbuff"})
"""Strategies that add updates of different rounds."""


def problems_by_name(data: Mapping[str, Any]) -> dict[str, str]:
    """Return why secure aggregation cannot go with what plain data names, by the field that names it."""
    if _named(data, "secure_aggregation", "method") not in ("masking", "homomorphic"):
        return {}
    found: dict[str, str] = {}
    strategy, join = _named(data, "strategy", "name"), _named(data, "strategy", "join")
    if join in NEEDS_EACH_UPDATE:
        found["strategy.join"] = (
            f"strategy.join: {join!r} compares single updates, which the hub cannot see here. Use 'mean', or set "
            "secure_aggregation.method: none."
        )
    if strategy in BUFFERED:
        found["strategy.name"] = (
            f"strategy.name: {strategy!r} adds updates of different rounds, and masks cancel within one round only. "
            "Use a synchronous strategy, or set pace.mode: buffered with any strategy and "
            "secure_aggregation.method: none."
        )
    return found


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


def _named(data: Mapping[str, Any], part: str, field: str) -> str:
    terms = data.get(part)
    name = terms.get(field) if isinstance(terms, Mapping) else None
    return name if isinstance(name, str) else ""


def _single_updates(study: StudySpec) -> list[str | None]:
    """Return what asks for each update's length; robust joinings are refused by name."""
    terms = study.strategy
    asked = {
        "strategy.name: 'fedexp'": terms.name == "fedexp",
        "strategy.norm_limit:": terms.norm_limit is not None,
        "strategy.weighting: 'noise'": terms.weighting == "noise",
    }
    return [
        f"{term} needs the length of each update, and the hub sees their sum alone. Leave it out, or set "
        "secure_aggregation.method: none."
        for term, is_asked_for in asked.items()
        if is_asked_for
    ]


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
