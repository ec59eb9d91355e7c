"""What a study's vector is: its length, its ring, the bound of a value and what a unit of the sum is worth. Pure.

    vector = weight (six words, each a digit of base 16) | values (one word for each coordinate)

The weight travels masked before the values, so that what the hub divides by is the sum over the very vectors that it
added, survivors only. It hides nothing: a site's number of training patients is public, in its approval.

With the step random-k only the values at the round's places are in the vector. All sites derive the same places from
what is public, so that a sum means what it says, and what the hub learns of a site is the less.

Overflow. A value lies within +-bound and at most `maximum_sites` vectors are added, so a sum lies within
+-maximum_sites * bound, which `VectorTerms` demands to be at most `ring.largest`, half the ring: the sum modulo
the ring is the sum of the integers. A weight's digit is at most 15, its sum at most 15 * 4096 < 2^16, read as unsigned
words.

    >>> terms = VectorTerms("quantised", Ring(16), values=2, bound=4095, unit=0.5 / 4095, maximum_sites=8)
    >>> terms.length, terms.payload_bytes
    (8, 16)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from protocol.compression.choice import chosen_total
from protocol.compression.steps import CodecStep
from protocol.compression.terms import upload_steps
from protocol.errors import MaskingError
from protocol.secure_aggregation.ring import Ring, Words
from protocol.shared_noise import RING, shared_noise_of
from protocol.study import StudySpec
from protocol.study_parts import SecureAggregation

WEIGHT_BASE_BITS = 4
WEIGHT_DIGITS = 6
LARGEST_WEIGHT = (1 << (WEIGHT_BASE_BITS * WEIGHT_DIGITS)) - 1
FEWEST_LEVELS = 127

Producer = Literal["quantised", "skellam"]
"""The step that made the integers; its name travels in the notice."""
MEANING: dict[Producer, Literal["difference", "gradient"]] = {"quantised": "difference", "skellam": "gradient"}
"""What the integers are of: the step before the producer's."""


@dataclass(frozen=True)
class VectorTerms:
    """The vector of one study; hub and site derive it alike."""

    step: Producer
    ring: Ring
    values: int
    bound: int
    """The largest magnitude of a site's value."""
    unit: float
    """What one unit of the sum is worth, before the division by the sum of the weights."""
    maximum_sites: int
    maximum_weight: int = 1
    codec: tuple[CodecStep, ...] = ()
    """The steps that chose which values are in it."""

    def __post_init__(self) -> None:
        """Refuse terms under which a sum could leave the ring."""
        if self.bound < 1 or self.bound * self.maximum_sites > self.ring.largest:
            raise MaskingError(
                f"The sum of {self.maximum_sites} sites' values of at most {self.bound} does not fit "
                f"{self.ring.bits} bits. Lower secure_aggregation.maximum_sites or value_bits."
            )
        digits_sum = ((1 << WEIGHT_BASE_BITS) - 1) * self.maximum_sites
        if digits_sum >= 1 << self.ring.bits or not 0 < self.maximum_weight <= LARGEST_WEIGHT:
            raise MaskingError("The sum of the sites' weights does not fit its digits.")

    @property
    def steps(self) -> tuple[Literal["difference", "gradient"] | CodecStep | Producer, ...]:
        """Return the steps that a site's integers have taken before they are masked."""
        return MEANING[self.step], *self.codec, self.step

    @property
    def length(self) -> int:
        """Return the words of a vector, the weight's digits included."""
        return self.values + WEIGHT_DIGITS

    @property
    def payload_bytes(self) -> int:
        """Return the bytes of a masked vector."""
        return self.length * self.ring.bytes_per_value

    @property
    def candidate_bytes(self) -> int:
        """Return the bytes that the worker hands over: the values alone."""
        return self.values * self.ring.bytes_per_value

    def weight_of(self, training_patients: int) -> int:
        """Return a site's whole-numbered weight: its patients, at most `maximum_weight`."""
        return max(1, min(training_patients, self.maximum_weight))

    def share_of(self, training_patients: int) -> float:
        """Return the factor, at most 1, by which a site multiplies its update."""
        return self.weight_of(training_patients) / self.maximum_weight

    def divisor(self, weights_sum: int) -> float:
        """Return what the summed values are divided by, to be a mean."""
        return weights_sum / self.maximum_weight


def vector_terms(study: StudySpec, parameters: int) -> VectorTerms:
    """Return the vector of a study whose model has so many parameters.

    Raises: MaskingError if the study adds no vectors, or their sum would not fit.
    """
    producer = PRODUCERS.get(producer_of(study))
    if study.secure_aggregation.method == "none" or producer is None:
        raise MaskingError("The study adds no masked vectors.")
    return producer(study, parameters)


def producer_of(study: StudySpec) -> Producer:
    """Return the step that makes the integers of a study."""
    return "skellam" if study.privacy.mechanism == "shared-noise" else "quantised"


def levels_of(terms: SecureAggregation) -> int:
    """Return how far a rounded value may lie from zero; see the overflow bound above."""
    if terms.value_bits is not None:
        return int((1 << (terms.value_bits - 1)) - 1)
    return Ring(16).largest // (terms.maximum_sites or 1)


def ring_of(terms: SecureAggregation) -> Ring:
    """Return the narrowest ring that holds the sum."""
    return Ring(16) if levels_of(terms) * (terms.maximum_sites or 1) <= Ring(16).largest else Ring(32)


def weight_digits(weight: int, ring: Ring) -> Words:
    """Return a weight as words, the lowest digit first.

    Raises: MaskingError if it is not a positive number of at most six digits.
    """
    if not 0 < weight <= LARGEST_WEIGHT:
        raise MaskingError(f"A weight lies between 1 and {LARGEST_WEIGHT}.")
    mask = (1 << WEIGHT_BASE_BITS) - 1
    digits = [(weight >> (WEIGHT_BASE_BITS * place)) & mask for place in range(WEIGHT_DIGITS)]
    return np.array(digits, ring.dtype)


def weights_sum(digits: NDArray[Any]) -> int:
    """Return the sum of the weights from the sums of their digits."""
    return sum(int(digit) << (WEIGHT_BASE_BITS * place) for place, digit in enumerate(digits))


def _quantised(study: StudySpec, parameters: int) -> VectorTerms:
    terms, codec = study.secure_aggregation, upload_steps(study)
    levels = levels_of(terms)
    return VectorTerms(
        step="quantised",
        ring=ring_of(terms),
        values=chosen_total(parameters, codec.fraction) if codec.sparsifier else parameters,
        bound=levels,
        unit=terms.value_range / max(1, levels),
        maximum_sites=terms.maximum_sites or 1,
        maximum_weight=(terms.maximum_weight or 1) if study.strategy.weighting == "patients" else 1,
        codec=codec.names,
    )


def _skellam(study: StudySpec, parameters: int) -> VectorTerms:
    # The sum over the sites is the clipped sum over all drawn patients: divided by their expected number it is the mean
    # gradient. A site's weight travels for that only; its integers are not multiplied by it.
    noise, most = shared_noise_of(study), study.secure_aggregation.maximum_weight or 1
    return VectorTerms(
        step="skellam",
        ring=RING,
        values=parameters,
        bound=noise.value_bound,
        unit=noise.grid / (study.training.sampling_rate * most),
        maximum_sites=study.secure_aggregation.maximum_sites or 1,
        maximum_weight=most,
    )


PRODUCERS: dict[str, Callable[[StudySpec, int], VectorTerms]] = {"quantised": _quantised, "skellam": _skellam}
"""For each step that makes ring integers: the vector of a study. Another producer adds its line here."""
