"""Several quantised values side by side in one slot, each in a field wide enough for the sum over all sites. Pure.

A site's value is an integer of `bits` bits, multiplied by its integer weight. With W the largest sum of weights, no sum
is above W (2**bits - 1), which is below 2**(bits + ceil(log2 W)): that is the field's width, so no field ever carries
into its neighbour, and all fields together stay below the plain modulus, so no slot ever wraps.

    >>> Packing(bits=8, weight_sum=8).field_bits, Packing(bits=8, weight_sum=8).fields
    (11, 5)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.errors import EncryptionError
from protocol.homomorphic.parameters import PARAMETERS, Parameters

Values = NDArray[np.uint64]
"""(value,) non-negative integers."""
Slots = NDArray[np.uint64]
"""(slot,) integers below the plain modulus."""
MOST_BITS = 32


@dataclass(frozen=True)
class Packing:
    """How values lie in slots. `weight_sum` is the most that the sites' integer weights can sum to."""

    bits: int
    weight_sum: int
    parameters: Parameters = PARAMETERS

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MOST_BITS or self.weight_sum < 1:
            raise EncryptionError(f"Expected 1 to {MOST_BITS} bits and weights that sum to 1 or more.")
        if self.field_bits > self.parameters.slot_bits:
            raise EncryptionError(
                f"A sum needs {self.field_bits} bits; a slot holds {self.parameters.slot_bits}. "
                "Quantise to fewer bits, or let weights sum to less."
            )

    @property
    def field_bits(self) -> int:
        """Return bits + ceil(log2 weight_sum)."""
        return self.bits + (self.weight_sum - 1).bit_length()

    @property
    def largest_sum(self) -> int:
        """Return the largest value that a sum can have."""
        return self.weight_sum * ((1 << self.bits) - 1)

    @property
    def fields(self) -> int:
        """Return how many values a slot holds."""
        return self.parameters.slot_bits // self.field_bits

    @property
    def values_per_ciphertext(self) -> int:
        """Return how many values one ciphertext holds."""
        return self.fields * self.parameters.degree

    def ciphertexts(self, values: int) -> int:
        """Return how many ciphertexts so many values fill; the last may be part empty."""
        return -(-values // self.values_per_ciphertext)


def cut(values: Values, packing: Packing) -> Iterator[Values]:
    """Yield the values of one ciphertext after another."""
    for start in range(0, values.size, packing.values_per_ciphertext):
        yield values[start : start + packing.values_per_ciphertext]


def pack(values: Values, packing: Packing) -> Slots:
    """Put the values of one ciphertext into its slots; missing ones are zero.

    Shapes: values (value,) at most `values_per_ciphertext`; result (degree,). The first `degree` values fill the lowest
        field of all slots, the next `degree` the field above.
    Raises: EncryptionError if there are more values, or one is above what any weight up to `weight_sum` can make of
        `bits` bits.
    """
    degree = packing.parameters.degree
    if values.ndim != 1 or not 1 <= values.size <= packing.values_per_ciphertext:
        raise EncryptionError(f"A ciphertext holds 1 to {packing.values_per_ciphertext} values; {values.size} came.")
    if int(values.max()) > packing.largest_sum:
        raise EncryptionError("A quantised value is above its bound. It would spill into its neighbour.")
    whole = np.zeros(packing.values_per_ciphertext, np.uint64)
    whole[: values.size] = values
    slots = np.zeros(degree, np.uint64)
    for field, row in enumerate(whole.reshape(packing.fields, degree)):
        slots |= row << np.uint64(field * packing.field_bits)
    return slots


def unpack(slots: Slots, packing: Packing, count: int) -> Values:
    """Take the first `count` values of a ciphertext out of its slots again.

    Raises: EncryptionError if the slots hold what no sum of honest values can: the sum is not used.
    """
    if slots.shape != (packing.parameters.degree,) or not 1 <= count <= packing.values_per_ciphertext:
        raise EncryptionError("The slots are not those of one ciphertext of this packing.")
    width = np.uint64(packing.field_bits)
    mask = np.uint64((1 << packing.field_bits) - 1)
    rows = np.stack([(slots >> (np.uint64(field) * width)) & mask for field in range(packing.fields)])
    if (slots >> (np.uint64(packing.fields) * width)).any() or int(rows.max()) > packing.largest_sum:
        raise EncryptionError("A decrypted sum is above its bound: a site encrypted what it may not. It is not used.")
    values = rows.reshape(-1)
    if values[count:].any():
        raise EncryptionError("A decrypted sum holds values beyond its end. It is not used.")
    return values[:count]
