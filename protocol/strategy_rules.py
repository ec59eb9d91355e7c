"""What each strategy needs of a study: the rules of `strategy`, with their reasons and remedies. Pure.

How many updates a joining needs is stated here once: the rules ask whether the smallest round that the study lets close
has so many, and the hub asks again at each close.
"""

import math
from collections.abc import Callable

from protocol.study import StudySpec

ADAPTIVE = frozenset({"fedadam", "fedyogi", "fedadagrad"})
LARGEST_ADAPTIVE_RATE = 1.0
VALUE_BY_VALUE = frozenset({"median", "trimmed-mean"})
"""Joinings that compare the sites' values one by one."""
COUNT_ALIKE = VALUE_BY_VALUE | {"krum", "multi-krum"}
"""Joinings that have no weights."""


def trimmed_mean_needs(wild_sites: int) -> int:
    """Return the fewest updates of which so many can be left out at both ends."""
    return 2 * wild_sites + 1


def krum_needs(wild_sites: int) -> int:
    """Return the fewest updates among which Krum holds against so many; Blanchard et al. 2017, Proposition 4.2."""
    return 2 * wild_sites + 3


NEEDS: dict[str, Callable[[int], int]] = {
    "median": lambda _: 3,
    "geometric-median": lambda _: 3,
    "trimmed-mean": trimmed_mean_needs,
    "krum": krum_needs,
    "multi-krum": krum_needs,
}
"""The robust joinings, which look at single updates: how many each needs against so many wild sites."""


def strategy_problems(study: StudySpec) -> list[str]:
    """Return one sentence for each rule of its strategy that a study breaks."""
    return [*_joining(study), *_step(study), *_scaffold(study), *_noise(study)]


def fewest_updates(study: StudySpec) -> int:
    """Return how many updates the smallest synchronous round that may close has."""
    # Rounded as the hub rounds it: 0.07 x 100 is a hair above 7 in binary.
    return max(1, math.ceil(round(study.participants.quorum * study.participants.minimum_sites, 9)))


def joining_needs(study: StudySpec) -> int:
    """Return the fewest updates that the study's joining can be made of."""
    terms = study.strategy
    return NEEDS[terms.join](terms.wild_sites) if terms.join in NEEDS else 1


def _joining(study: StudySpec) -> list[str]:
    join, found = study.strategy.join, list[str]()
    if join in NEEDS:
        needed, fewest = joining_needs(study), fewest_updates(study)
        if fewest < needed:
            found.append(
                f"strategy.join: {join!r} needs {needed} updates to tell wild ones from others, and a round may close "
                f"with {fewest}. Raise participants.minimum_sites or participants.quorum (their product counts), or "
                "lower strategy.wild_sites."
            )
        if study.pace.mode == "buffered":
            found.append(
                f"strategy.join: {join!r} counts on each site being there once, and in buffered rounds a fast site may "
                "be there twice. Set pace.mode: synchronous, or strategy.join: mean."
            )
    if join in COUNT_ALIKE and study.strategy.weighting != "equal":
        found.append(
            f"strategy.weighting: {join!r} counts sites alike, whatever they say of themselves. Set it to equal."
        )
    return found


def _step(study: StudySpec) -> list[str]:
    terms, found = study.strategy, list[str]()
    if terms.name in ADAPTIVE and terms.learning_rate >= LARGEST_ADAPTIVE_RATE:
        found.append(
            f"strategy.learning_rate: with {terms.name!r} every weight moves by up to the rate in each round, and "
            f"{terms.learning_rate:g} is larger than most weights. Set it to 0.01 or 0.1, for example."
        )
    if terms.name != "fedexp":
        return found
    if terms.learning_rate != 1:
        found.append(
            "strategy.learning_rate: 'fedexp' finds the hub's step from the updates in each round, 1 being its "
            "shortest. Leave it at 1."
        )
    if terms.join != "mean":
        found.append(
            "strategy.join: 'fedexp' compares the updates with their mean. Use mean, or another strategy.name."
        )
    return found


def _scaffold(study: StudySpec) -> list[str]:
    """Return what SCAFFOLD does not go with, at the hub and at the sites; `pace_rules.py` has the rounds' side."""
    if study.strategy.name != "scaffold":
        return []
    found = list[str]()
    if study.strategy.join != "mean" or study.strategy.norm_limit is not None:
        found.append(
            "strategy.join: 'scaffold' moves the control variate by the mean of all updates as they were sent. Use "
            "mean without norm_limit, or another strategy.name."
        )
    return [*found, *_scaffold_at_sites(study)]


def _scaffold_at_sites(study: StudySpec) -> list[str]:
    training, found = study.training, list[str]()
    if training.optimizer != "sgd" or training.momentum:
        found.append(
            "training.optimizer: SCAFFOLD reads the mean gradient off the update, as the update over steps times "
            "learning rate, which is true of plain gradient descent only. Use sgd without momentum."
        )
    if training.proximal:
        found.append(
            "training.proximal: SCAFFOLD corrects the drift that FedProx pulls back, and its control variates would "
            "learn the pull. Set it to 0, or choose another strategy.name."
        )
    if study.privacy.mechanism != "dp-sgd":
        found.append(
            "strategy.name: 'scaffold' reads the mean gradient off a site's own update, which is cut as a whole or not "
            f"made at all with {study.privacy.mechanism!r}. Use privacy.mechanism: dp-sgd, or another strategy."
        )
    if study.personal.keep:
        found.append(
            "personal.keep: a tensor that stays at its site has no mean for SCAFFOLD to correct towards. Leave it "
            "empty, or choose another strategy.name."
        )
    return found


def _noise(study: StudySpec) -> list[str]:
    terms, found = study.strategy, list[str]()
    private = study.privacy.epsilon is not None
    if terms.weighting == "noise" and (study.privacy.mechanism != "dp-sgd" or study.training.optimizer != "sgd"):
        found.append(
            "strategy.weighting: 'noise' knows what 'dp-sgd' with the optimiser sgd adds to an update, and nothing "
            "else. Use those, or weighting: patients."
        )
    if terms.name == "fedexp" and private and (terms.weighting == "equal" or study.privacy.mechanism != "dp-sgd"):
        found.append(
            "strategy.name: with DP 'fedexp' takes the known noise off the updates' lengths, for which it needs each "
            "site's number of patients and the mechanism dp-sgd. Set weighting to patients or noise, or use 'fedavg'."
        )
    if study.personal.keep and (terms.weighting == "noise" or (terms.name == "fedexp" and private)):
        found.append(
            "personal.keep: the noise in an update is reckoned over all its values, and tensors that stay at home "
            "leave as zeros without any. Leave it empty, or use weighting: patients and strategy.name: fedavg."
        )
    if terms.name == "fedexp" and private and study.training.optimizer != "sgd":
        found.append(
            "training.optimizer: with DP 'fedexp' knows the noise of sgd only. Use sgd, or strategy.name: fedavg."
        )
    return found
