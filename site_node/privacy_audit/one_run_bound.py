"""A lower bound of epsilon from one training run, in which many canaries were each included by a fair coin.

The auditor guesses of some canaries whether they were in, abstains on the rest, and counts the right guesses. If the
training is (epsilon, delta)-private for each canary, the number of right guesses is dominated by Binomial(guesses,
e^epsilon / (e^epsilon + 1)), up to a correction for delta. Too many right guesses refute epsilon.

Nothing is assumed about the attack: a better one raises the bound, a poor one makes it 0, and none raises it above the
true epsilon more often than 1 - confidence. How many guesses are made must be fixed before the scores are seen.

Source: Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", NeurIPS 2023, arXiv:2305.08846:
Algorithm 1 (the audit), Theorem 5.2 (the p-value, evaluated as in Appendix D).

    >>> round(epsilon_lower_bound(Guesses(canaries=100, made=100, right=100), delta=0.0), 3)
    3.494
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
TOLERANCE = 1e-6
LARGEST_EPSILON = 64.0


@dataclass(frozen=True)
class Guesses:
    """How many canaries were tossed for, on how many of them a guess was made, and how many guesses were right."""

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if not 0 <= self.right <= self.made <= self.canaries:
            raise ValueError("Expected 0 <= right <= made <= canaries.")


def guess(scores: NDArray[np.float64], included: NDArray[np.bool_], high: int, low: int) -> Guesses:
    """Guess that the `high` highest scores were included and the `low` lowest were not, and count the right guesses.

    Shapes: scores and included (canary,). Equal scores are taken in the order of the canaries.
    Raises: ValueError if more guesses are asked for than there are canaries, or a score is not finite.
    """
    if high < 0 or low < 0 or high + low > len(scores) or not np.isfinite(scores).all():
        raise ValueError("Expected finite scores, and at most as many guesses as canaries.")
    order = np.argsort(scores, kind="stable")
    called_out, called_in = order[:low], order[len(order) - high :]
    right = int(included[called_in].sum()) + int((~included[called_out]).sum())
    return Guesses(canaries=len(scores), made=high + low, right=right)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of so many right guesses, or more, if training is (epsilon, delta)-private.

    Source: Theorem 5.2: P[Binomial >= right] + 2 canaries delta max_i P[right > Binomial >= right - i] / i.
    """
    chances = _binomial(guesses.made, epsilon)
    tail = float(chances[guesses.right :].sum())
    below = np.cumsum(chances[: guesses.right][::-1])  # P[right > Binomial >= right - i] for i = 1, 2, ...
    steepest = float((below / np.arange(1, guesses.right + 1)).max()) if guesses.right else 0.0
    return min(1.0, tail + 2.0 * guesses.canaries * delta * steepest)


def epsilon_lower_bound(guesses: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return the largest epsilon that the guesses refute at this delta; 0 if they refute none.

    Guarantee: an (epsilon, delta)-private training gets a bound above epsilon with probability at most 1 - confidence.
    """
    low, high = 0.0, LARGEST_EPSILON
    if p_value(guesses, low, delta) >= 1.0 - confidence:
        return 0.0
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        if p_value(guesses, middle, delta) < 1.0 - confidence:
            low = middle
        else:
            high = middle
    return low


def _binomial(trials: int, epsilon: float) -> NDArray[np.float64]:
    # The law of right guesses under randomised response: (trials + 1,) probabilities, made from logarithms.
    log_right = -math.log1p(math.exp(-epsilon))
    log_wrong = log_right - epsilon
    counts = range(trials + 1)
    logs = [_log_choose(trials, k) + k * log_right + (trials - k) * log_wrong for k in counts]
    return np.asarray(np.exp(np.array(logs)))


def _log_choose(trials: int, k: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
