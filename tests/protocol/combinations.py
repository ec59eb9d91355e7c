"""What a study can choose, option by option, and sets of choices that hold every legal pair.

An option is a change of a tiny study and what that change needs beside it; what a study states by another option's
change goes before what this one needs. `pairwise_cover` makes few studies such that every two values that parse
together are together in one of them (Kuhn, Kacker, Lei 2010, NIST SP 800-142: most faults need two things at once).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from protocol.errors import SpecificationError
from protocol.study import parse_study

Change = Mapping[str, Any]
Choice = tuple[str, str]
"""An option and one of its values."""
Chosen = dict[str, str]
"""A value of each option that is not left at its first."""


@dataclass(frozen=True)
class Value:
    """A value of an option: dotted keys of the study, and the keys that it needs if nothing else states them."""

    states: Change = field(default_factory=dict)
    needs: Change = field(default_factory=dict)


BASE: Change = {
    "name": "pairs",
    "kind": "tabular",
    "label.column": "died",
    "label.classes": ["no", "yes"],
    "cohort.minimum_patients": 2,
    "table.features": [{"column": "age", "mean": 60, "deviation": 10}, {"column": "marker"}],
    "network.name": "mlp",
    "network.arguments": {"hidden": [4]},
    "training.local_steps": 2,
    "training.sampling_rate": 0.5,
    "rounds": 2,
    "participants.minimum_sites": 5,
    "participants.quorum": 1.0,
    "participants.training_patients": 400,
    "privacy.epsilon": None,
    "privacy.delta": 1e-4,
    "transport.upload": [],
}
IMAGES: Change = {
    "kind": "classification",
    "label.column": "label",
    "table.features": [],
    "network.name": "convnet",
    "network.arguments": {"channels": [2], "strides": [2], "kernels": [3], "head": 1},
    "preprocessing.size": [8, 8],
    "preprocessing.augmentation": "none",
}
HIDDEN_SUM: Change = {"secure_aggregation.maximum_sites": 16, "secure_aggregation.maximum_weight": 100}


def _alike(join: str) -> Value:
    return Value({"strategy.join": join}, {"strategy.weighting": "equal"})


def _adaptive(name: str) -> Value:
    return Value({"strategy.name": name}, {"strategy.learning_rate": 0.1})


def _private(mechanism: str, **needs: Any) -> Value:
    return Value({"privacy.mechanism": mechanism, "privacy.epsilon": 8.0}, needs)


OPTIONS: dict[str, dict[str, Value]] = {
    "kind": {
        "table": Value(),
        "survival": Value({"label.time_column": "days"}, {"training.images_per_patient": 1}),
        "images": Value(IMAGES),
    },
    "name": {
        "fedavg": Value(),
        "fedavgm": Value({"strategy.name": "fedavgm"}),
        "fedadam": _adaptive("fedadam"),
        "fedyogi": _adaptive("fedyogi"),
        "fedadagrad": _adaptive("fedadagrad"),
        "fedexp": Value({"strategy.name": "fedexp"}),
        "scaffold": Value({"strategy.name": "scaffold"}),
    },
    "join": {
        "mean": Value(),
        "median": _alike("median"),
        "trimmed-mean": _alike("trimmed-mean"),
        "krum": _alike("krum"),
        "multi-krum": _alike("multi-krum"),
        "geometric-median": Value({"strategy.join": "geometric-median"}),
    },
    "weighting": {
        "unsaid": Value(),
        "patients": Value({"strategy.weighting": "patients"}),
        "equal": Value({"strategy.weighting": "equal"}),
        "noise": Value({"strategy.weighting": "noise"}),
    },
    "norm_limit": {"none": Value(), "three": Value({"strategy.norm_limit": 3.0})},
    "averaging": {"none": Value(), "half": Value({"strategy.averaging": 0.5})},
    "late": {"refuse": Value(), "fold": Value({"participants.late": "fold"})},
    "deadline": {"fixed": Value(), "learned": Value({"participants.deadline": "learned"})},
    "sampled": {"all": Value(), "some": Value({"participants.sampled": 0.5})},
    "mode": {"synchronous": Value(), "buffered": Value({"pace.mode": "buffered"}, {"pace.buffer": 3})},
    "upload": {
        "whole": Value(),
        "zstandard": Value({"transport.upload": ["zstandard"]}),
        "top-k": Value({"transport.upload": ["top-k:0.5"]}),
        "random-k": Value({"transport.upload": ["random-k:0.5"]}),
        "quantise": Value({"transport.upload": ["quantise:8"]}),
        "half": Value({"transport.upload": ["half"]}),
    },
    "download": {"whole": Value(), "quantise": Value({"transport.download": ["quantise:8"]})},
    "personal": {
        "none": Value(),
        "keep": Value({"personal.keep": ["*bias"]}),
        "ditto": Value({"personal.ditto": 0.5}),
        "ditto-global": Value({"personal.ditto": 0.5, "personal.judged": "global"}),
    },
    "proximal": {"none": Value(), "some": Value({"training.proximal": 0.1})},
    "optimizer": {"sgd": Value(), "adam": Value({"training.optimizer": "adam"})},
    "site_rates": {
        "none": Value(),
        "quality": Value({"site_rates.adapt": "quality", "site_rates.quality_epsilon": 1.0}),
        "updates": Value({"site_rates.adapt": "updates"}),
    },
    "method": {
        "none": Value(),
        "masking": Value({"secure_aggregation.method": "masking"}, HIDDEN_SUM),
        "homomorphic": Value({"secure_aggregation.method": "homomorphic"}, HIDDEN_SUM),
    },
    "mechanism": {
        "off": Value(),
        "dp-sgd": _private("dp-sgd"),
        "shared-noise": _private(
            "shared-noise",
            **{
                "training.local_steps": 1,
                "secure_aggregation.method": "masking",
                "privacy.honest_fraction": 1.0,
                **HIDDEN_SUM,
            },
        ),
        "site-level": _private(
            "site-level",
            **{"privacy.unit": "site", "participants.minimum_sites": 10, "strategy.weighting": "equal"},
        ),
    },
    "counts": {
        "seen": Value({"evaluation.sum_under_masks": False}),
        "summed": Value({"evaluation.sum_under_masks": True}),
        "noised": Value({"evaluation.noise_epsilon": 1.0}),
    },
    "classes": {"two": Value(), "three": Value({"label.classes": ["no", "yes", "neither"]})},
    "final_version": {"last": Value(), "best": Value({"evaluation.final_version": "best-validation"})},
    "patience": {"none": Value(), "one": Value({"evaluation.patience": 1})},
}


def study_data(chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return the plain data of the study that these values make."""
    values = [OPTIONS[option][value] for option, value in chosen.items()]
    keys = dict(BASE)
    for value in values:
        keys |= value.needs
    for value in values:
        keys |= value.states
    study: dict[str, Any] = {}
    for key, stated in keys.items():
        *parts, name = key.split(".")
        inner = study
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[name] = stated
    return study


def problems_of(chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return why a study of these values is refused; empty if it is legal."""
    try:
        parse_study(study_data(chosen))
    except SpecificationError as error:
        return tuple(error.problems)
    return ()


def all_pairs() -> Iterator[tuple[Choice, Choice]]:
    """Yield every two values of different options, but for each option's first, which changes nothing."""
    changes = {option: list(values)[1:] for option, values in OPTIONS.items()}
    for one, other in itertools.combinations(changes, 2):
        for first, second in itertools.product(changes[one], changes[other]):
            yield (one, first), (other, second)


def pairwise_cover() -> list[Chosen]:
    """Return few legal studies in which every legal pair of changes is together at least once."""
    missing = {pair for pair in all_pairs() if not problems_of(dict(pair))}
    choices = [(option, value) for option, values in OPTIONS.items() for value in list(values)[1:]]
    found: list[Chosen] = []
    for pair in all_pairs():
        if pair in missing:
            found.append(_grown(dict(pair), choices, missing))
            missing -= _pairs_of(found[-1])
    return found


def _grown(chosen: Chosen, choices: Sequence[Choice], missing: Set[tuple[Choice, Choice]]) -> Chosen:
    """Add to a study, as long as it stays legal, the value that brings most missing pairs together; and again."""
    wider = [chosen | {option: value} for option, value in choices if option not in chosen]
    brought = {index: len(_pairs_of(study) & missing) for index, study in enumerate(wider)}
    least = len(_pairs_of(chosen) & missing)
    for index in sorted(brought, key=lambda index: -brought[index]):
        if brought[index] > least and not problems_of(wider[index]):
            return _grown(wider[index], choices, missing)
    return chosen


def _pairs_of(chosen: Chosen) -> set[tuple[Choice, Choice]]:
    return set(itertools.combinations([(option, chosen[option]) for option in OPTIONS if option in chosen], 2))
