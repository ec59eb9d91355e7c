"""The vector of a study's sums (`protocol/secure_aggregation/vector.py`) as values that are packed and encrypted. Pure.

The vector's words are weight digits and centred values; here every value is raised by its bound, so that it is not
negative: 0 to 2 x bound. A field is as wide as log2 of that, and of the most sites that a sum may have, demand. A
site's integer weight lies in the digits and, as a factor of at most 1, in the values themselves, so each site's values
count once. A decrypted sum of n sites is lowered by n bounds and becomes the words that masking would have opened.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import CiphertextForm
from protocol.homomorphic.packing import Packing, Values
from protocol.secure_aggregation.ring import Words
from protocol.secure_aggregation.vector import WEIGHT_BASE_BITS, WEIGHT_DIGITS, VectorTerms

LARGEST_DIGIT = (1 << WEIGHT_BASE_BITS) - 1


def form_of(terms: VectorTerms, study_digest: str, number: int, key_id: str) -> CiphertextForm:
    """Return what every ciphertext file of a round is; hub and site derive it alike.

    Raises: EncryptionError if the study's values and sites need more bits than a slot has.
    """
    bits = max(2 * terms.bound, LARGEST_DIGIT).bit_length()
    return CiphertextForm(study_digest, number, key_id, terms.length, Packing(bits, weight_sum=terms.maximum_sites))


def raised(pieces: Iterable[Words], terms: VectorTerms) -> Iterator[Values]:
    """Turn the words of a vector, in pieces, into values that are not negative.

    Raises: EncryptionError if a word is beyond its bound.
    """
    for start, words in _with_start(pieces):
        values = terms.ring.decode(words) + terms.bound
        digits = words[: max(0, WEIGHT_DIGITS - start)].astype(np.int64)
        values[: digits.size] = digits
        if int(values.min(initial=0)) < 0 or int(values.max(initial=0)) > 2 * max(terms.bound, LARGEST_DIGIT):
            raise EncryptionError("A value of the vector is beyond its bound.")
        yield values.astype(np.uint64)


def lowered(pieces: Iterable[Values], terms: VectorTerms, sites: int) -> Iterator[Words]:
    """Turn the decrypted sums of so many sites' values, in pieces, into the words of the sum.

    Raises: EncryptionError if a sum is above what so many sites can have sent.
    """
    for start, values in _with_start(pieces):
        digits = values[: max(0, WEIGHT_DIGITS - start)]
        rest = values[digits.size :]
        if int(rest.max(initial=0)) > 2 * terms.bound * sites or int(digits.max(initial=0)) > LARGEST_DIGIT * sites:
            raise EncryptionError(f"A decrypted sum is above what {sites} sites can have sent. It is not used.")
        yield np.concatenate(
            [digits.astype(terms.ring.dtype), terms.ring.encode(rest.astype(np.int64) - terms.bound * sites)]
        )


def in_pieces(parts: Iterable[Words], size: int) -> Iterator[Words]:
    """Cut a vector that comes in parts of any size into pieces of one size; the last may be shorter."""
    rest: list[Words] = []
    held = 0
    for part in parts:
        rest, held = [*rest, part], held + part.size
        while held >= size:
            whole = np.concatenate(rest)
            yield whole[:size]
            rest, held = [whole[size:]], held - size
    if held:
        yield np.concatenate(rest)


def _with_start(pieces: Iterable[Values]) -> Iterator[tuple[int, Values]]:
    start = 0
    for piece in pieces:
        yield start, piece
        start += piece.size
