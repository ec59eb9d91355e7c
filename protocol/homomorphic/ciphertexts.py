"""Ciphertext files: a header that is known before the file comes, then records of one fixed size. Numpy only.

    file     header | record | record | ...                     of a site's update
    header   8 bytes: length of the JSON; canonical JSON: parameters, packing, key, study, round, number of values
    record   64 bytes: the seed of the second polynomial | the first polynomial

    sum      header, which names the summands by their digests | added first polynomial | ...

A secret-key ciphertext is (b, a) with a uniform: it travels as the 64-byte seed that SEAL expands to a, and the
coefficients of b at 36 bits each. Adding ciphertexts adds the b modulo each prime; the a stay seeds, in the summands'
files, and are expanded and added by whoever decrypts. So the hub adds without the key, without a public key and without
any native code: what it reads from others is compared with the expected header and range-checked, and nothing in a file
says how large anything is. Equal moduli, sizes, study, round and key are one comparison of bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocol.digest import canonical_json
from protocol.errors import EncryptionError
from protocol.homomorphic.packing import Packing
from protocol.homomorphic.parameters import PARAMETERS, Parameters

SEED_BYTES = 64
LENGTH_BYTES = 8
LOW_BITS = 32
HIGH_BITS = 4
"""A coefficient is 32 low and 4 high bits; two neighbours share a byte of high bits."""

Coefficients = NDArray[np.uint64]
"""(ciphertext, prime, coefficient), each below its prime."""
Records = NDArray[np.uint8]
"""(ciphertext, byte)."""


@dataclass(frozen=True)
class CiphertextForm:
    """What every ciphertext file of one round must be; its header follows from it."""

    study_digest: str
    round: int
    key_id: str
    values: int
    packing: Packing

    @property
    def ciphertexts(self) -> int:
        """Return how many ciphertexts a file holds."""
        return self.packing.ciphertexts(self.values)

    @property
    def header(self) -> bytes:
        """Return the first bytes of every site's file."""
        return _framed(self._document("wardround.bfv-update/1"))

    @property
    def file_bytes(self) -> int:
        """Return the exact size of every site's file."""
        return len(self.header) + self.ciphertexts * record_bytes(self.packing.parameters)

    def sum_header(self, summands: Sequence[str]) -> bytes:
        """Return the first bytes of the sum of the files with these digests, in this order."""
        return _framed({**self._document("wardround.bfv-sum/1"), "summands": list(summands)})

    def sum_bytes(self, summands: Sequence[str]) -> int:
        """Return the exact size of a sum."""
        return len(self.sum_header(summands)) + self.ciphertexts * polynomial_bytes(self.packing.parameters)

    def _document(self, schema: str) -> dict[str, object]:
        return {
            "schema": schema,
            "study_digest": self.study_digest,
            "round": self.round,
            "key_id": self.key_id,
            "parameters": self.packing.parameters.digest,
            "bits": self.packing.bits,
            "weight_sum": self.packing.weight_sum,
            "values": self.values,
        }


def polynomial_bytes(parameters: Parameters = PARAMETERS) -> int:
    """Return the bytes of one polynomial's packed coefficients."""
    return len(parameters.data_primes) * parameters.degree * (LOW_BITS + HIGH_BITS) // 8


def record_bytes(parameters: Parameters = PARAMETERS) -> int:
    """Return the bytes of one ciphertext."""
    return SEED_BYTES + polynomial_bytes(parameters)


def records_from(data: bytes | bytearray | memoryview, parameters: Parameters = PARAMETERS) -> Records:
    """Cut bytes into whole records, sharing their memory.

    Raises: EncryptionError if they are not whole records.
    """
    size = record_bytes(parameters)
    if len(data) % size:
        raise EncryptionError(f"Ciphertexts come in records of {size} bytes; the file is cut off or of another kind.")
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def seeds_of(records: Records) -> NDArray[np.uint8]:
    """Return the records' seeds. Shapes: result (ciphertext, 64)."""
    return records[:, :SEED_BYTES]


def coefficients_of(records: Records, parameters: Parameters = PARAMETERS) -> Coefficients:
    """Unpack the first polynomials of records.

    Guarantee: every coefficient is below its prime, so that what is done with it next stays within the ring.
    Raises: EncryptionError if one is not.
    """
    return unpacked(records[:, SEED_BYTES:], parameters)


def packed(coefficients: Coefficients) -> Records:
    """Write coefficients at 36 bits each. Shapes: result (ciphertext, byte)."""
    count = coefficients.shape[0]
    flat = coefficients.reshape(count, -1)
    low = (flat & np.uint64((1 << LOW_BITS) - 1)).astype("<u4")
    high = (flat >> np.uint64(LOW_BITS)).astype(np.uint8)
    nibbles = high[:, 0::2] | (high[:, 1::2] << np.uint8(HIGH_BITS))
    return np.concatenate([low.view(np.uint8), nibbles], axis=1)


def unpacked(data: Records, parameters: Parameters = PARAMETERS) -> Coefficients:
    """Read coefficients of 36 bits.

    Raises: EncryptionError if there are too few or too many, or one is not below its prime.
    """
    primes, degree = len(parameters.data_primes), parameters.degree
    if data.shape[1] != polynomial_bytes(parameters):
        raise EncryptionError("A polynomial has another number of coefficients than the parameters say.")
    split = primes * degree * LOW_BITS // 8
    flat = np.ascontiguousarray(data[:, :split]).view("<u4").astype(np.uint64)
    nibbles = data[:, split:].astype(np.uint64) << np.uint64(LOW_BITS)
    flat[:, 0::2] |= nibbles & np.uint64(0xF << LOW_BITS)
    flat[:, 1::2] |= nibbles >> np.uint64(HIGH_BITS) & np.uint64(0xF << LOW_BITS)
    coefficients = flat.reshape(-1, primes, degree)
    if (coefficients >= _primes(parameters)).any():
        raise EncryptionError("A ciphertext holds a coefficient that is not below its prime. It is not used.")
    return coefficients


def add(polynomials: Iterable[Coefficients], parameters: Parameters = PARAMETERS) -> Coefficients:
    """Add first polynomials modulo each prime.

    Guarantee: exact; at most `most_summands` 36-bit numbers cannot overflow 64 bits.
    Raises: EncryptionError if there are none, or more than decrypt exactly.
    """
    total: Coefficients | None = None
    count = 0
    for polynomial in polynomials:
        total = polynomial.copy() if total is None else np.add(total, polynomial, out=total)
        count += 1
    if total is None or count > parameters.most_summands:
        raise EncryptionError(f"A sum has 1 to {parameters.most_summands} ciphertexts; {count} came.")
    return np.asarray(np.remainder(total, _primes(parameters), out=total))


def _primes(parameters: Parameters) -> NDArray[np.uint64]:
    return np.array(parameters.data_primes, np.uint64)[None, :, None]


def _framed(document: dict[str, object]) -> bytes:
    body = canonical_json(document)
    return len(body).to_bytes(LENGTH_BYTES, "little") + body
