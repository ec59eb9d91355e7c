"""A specification as text: what a person sends, and what the hub stored. Pure."""

import itertools
from functools import lru_cache
from typing import Any

import yaml

from protocol.digest import parse_json
from protocol.errors import SpecificationError
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from protocol.study import StudySpec, parse_study

MOST_EXACT_ROUNDS = 24


def read_study(text: bytes) -> StudySpec:
    """Parse a specification written as YAML or JSON.

    Raises: SpecificationError.
    """
    try:
        data: Any = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", at line {where.line + 1}" if where else ""
        raise SpecificationError([f"Expected YAML or JSON{line}. Check indentation, colons and quotes."]) from None
    return parse_study(data)


@lru_cache(maxsize=256)
def stored_study(document: bytes) -> StudySpec:
    """Parse a specification that this hub stored; it was checked when it came. Frozen, so that many may share it."""
    return StudySpec.model_validate(parse_json(document))


def preview(spec: StudySpec) -> dict[str, Any]:
    """Return what a study would cost: its digest, noise, and the epsilon of a site after each round.

    Beyond 24 rounds epsilon is computed at 24 of them; a round between has that of the next one: an upper bound.
    """
    noise = noise_multiplier_of(spec)
    return {
        "digest": spec.digest,
        "noise_multiplier": noise,
        "epsilon_by_round": [] if noise is None else _epsilon_by_round(spec, noise),
        "study": spec.model_dump(mode="json", by_alias=True),
    }


def _epsilon_by_round(spec: StudySpec, noise: float) -> list[float]:
    parts = min(spec.rounds, MOST_EXACT_ROUNDS)
    computed = [(spec.rounds * part + parts - 1) // parts for part in range(1, parts + 1)]
    values: list[float] = []
    for earlier, later in itertools.pairwise([0, *computed]):
        epsilon = epsilon_of(training_events(spec, noise, later), spec.privacy.delta)
        values += [epsilon] * (later - earlier)
    return values
