"""What each key of a study needs to have any effect; one that would be silently ignored is refused. Pure.

A key counts as asked for where its value differs from its default: a study that was written out whole, every default
stated, is the same study. Terms of `privacy` that `epsilon: null` switches off are no such keys: the same study without
differential privacy, to compare with, is one change. Rules that need a sentence of their own stand with the part that
they are about (`pace_rules.py`, `site_rate_rules.py`, `table_rules.py`, `training_rules.py`, `transport_rules.py`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pydantic import BaseModel

from protocol.secure_aggregation.histograms import sums_histograms
from protocol.strategy_rules import ADAPTIVE, NEEDS
from protocol.study import StudySpec

SECOND_MOMENT = frozenset({"fedadam", "fedyogi"})
MOMENTUM = ADAPTIVE | {"fedavgm"}


@dataclass(frozen=True)
class Need:
    """What some keys need; `why` says what they do without it, and what to write instead."""

    keys: tuple[str, ...]
    is_met: Callable[[StudySpec], bool]
    why: str


NEEDED: tuple[Need, ...] = (
    Need(
        ("label.column", "label.patient_label", "label.patient_score"),
        lambda study: study.kind != "segmentation",
        "a segmentation study learns from masks (masks.csv) and judges a patient's images together. Leave it out.",
    ),
    Need(
        ("label.patient_label",),
        lambda study: study.kind != "regression",
        "a regression study learns a number of each image. Leave it out; label.patient_score says how a patient's "
        "number is made of them.",
    ),
    Need(
        ("regression.huber_delta",),
        lambda study: study.regression.loss == "huber",
        "the squared loss has no such bend. Leave it out, or set regression.loss: huber.",
    ),
    Need(
        ("training.momentum",),
        lambda study: study.training.optimizer == "sgd",
        "'adam' has moments of its own and does not read it. Leave it out, or set training.optimizer: sgd.",
    ),
    Need(
        ("training.step_rounds", "training.step_factor"),
        lambda study: study.training.schedule == "step",
        "the learning rate falls in steps with one schedule only. Leave it out, or set training.schedule: step.",
    ),
    Need(
        ("training.proximal",),
        lambda study: study.privacy.mechanism == "shared-noise" or study.local_steps != 1,
        "a round's only step starts at the version itself, so there is nothing to pull back from. Set it to 0, or "
        "training.local_steps above 1.",
    ),
    Need(
        ("strategy.momentum",),
        lambda study: study.strategy.name in MOMENTUM,
        "this strategy's step keeps nothing of the last one. Leave it out, or choose strategy.name: fedavgm, fedadam, "
        "fedyogi or fedadagrad.",
    ),
    Need(
        ("strategy.second_moment",),
        lambda study: study.strategy.name in SECOND_MOMENT,
        "this strategy keeps no running mean of squared updates. Leave it out, or choose strategy.name: fedadam or "
        "fedyogi.",
    ),
    Need(
        ("strategy.tau",),
        lambda study: study.strategy.name in ADAPTIVE,
        "this strategy has no rate for each weight. Leave it out, or choose strategy.name: fedadam, fedyogi or "
        "fedadagrad.",
    ),
    Need(
        ("strategy.wild_sites",),
        lambda study: _counts_wild_sites(study.strategy.join),
        "this joining does not count on a number of wild sites. Leave it out, or choose strategy.join: trimmed-mean, "
        "krum or multi-krum.",
    ),
    Need(
        ("pace.maximum_staleness",),
        lambda study: study.pace.mode == "buffered",
        "in synchronous rounds every update is of the newest version, or one round late. Leave it out, or set "
        "pace.mode: buffered.",
    ),
    Need(
        ("pace.staleness_exponent",),
        lambda study: study.pace.mode == "buffered" or study.participants.late == "fold",
        "no update of an earlier version is counted. Leave it out, or set participants.late: fold or pace.mode: "
        "buffered.",
    ),
    Need(
        ("site_rates.least", "site_rates.most", "site_rates.from_round"),
        lambda study: study.site_rates.adapt != "none",
        "all hospitals learn at the study's rate. Leave it out, or set site_rates.adapt.",
    ),
    Need(
        ("site_rates.adapt",),
        lambda study: (
            study.site_rates.least < 1 < study.site_rates.most
            or (study.site_rates.adapt == "quality" and study.label.balance == "quality")  # read for the weights alone
        ),
        "the factors' mean is 1, so that with site_rates.least or site_rates.most at 1 every factor is 1, and what is "
        "spent on quality figures is spent for nothing. Set least below and most above 1, or adapt: none.",
    ),
    Need(
        ("site_rates.adapt",),
        lambda study: not study.site_rates.reads_updates or study.rounds > 1,
        "a factor follows the updates of earlier rounds, and a study of one round has none. Set it to quality or none, "
        "or raise rounds.",
    ),
    Need(
        ("privacy.honest_fraction",),
        lambda study: study.privacy.mechanism == "shared-noise",
        "each site's noise is whole and counts on no other site. Leave it out, or set privacy.mechanism: shared-noise.",
    ),
    Need(
        ("privacy.update_norm", "privacy.update_quantile", "privacy.update_norm_rate"),
        lambda study: study.privacy.mechanism == "site-level",
        "no site's update is cut as a whole. Leave it out, or set privacy.mechanism: site-level.",
    ),
    Need(
        ("privacy.update_quantile",),
        lambda study: study.privacy.update_norm_rate > 0,
        "the norm is kept as it is and follows no quantile. Leave it out, or set privacy.update_norm_rate above 0.",
    ),
    Need(
        tuple(f"secure_aggregation.{key}" for key in ("maximum_sites", "maximum_weight", "value_range", "value_bits")),
        lambda study: study.secure_aggregation.method != "none",
        "updates are not summed under masks or encryption. Leave it out, or set secure_aggregation.method.",
    ),
    Need(
        ("secure_aggregation.phase_seconds",),
        lambda study: study.secure_aggregation.method != "none" or sums_histograms(study),
        "nothing is summed under masks or encryption. Leave it out, or set secure_aggregation.method.",
    ),
)
"""Every key that has an effect only beside another, and what that is."""


def unused_keys(study: StudySpec) -> list[str]:
    """Return one sentence for each key that the study sets and that would do nothing."""
    return [f"{key}: {need.why}" for need in NEEDED for key in _asked_for(study, need) if not need.is_met(study)]


def _asked_for(study: StudySpec, need: Need) -> Iterator[str]:
    for key in need.keys:
        *parts, name = key.split(".")
        part: Any = reduce(getattr, parts, study)
        if getattr(part, name) != _default_of(part, name):
            yield key


def _default_of(part: BaseModel, name: str) -> Any:
    return type(part).model_fields[name].default


def _counts_wild_sites(join: str) -> bool:
    needs = NEEDS.get(join)
    return needs is not None and needs(1) != needs(2)
