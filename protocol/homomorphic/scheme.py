"""BFV with a secret key, through TenSEAL's binding of SEAL: encrypt, expand, add, decrypt. Only sites load this file.

TenSEAL reads and writes ciphertexts through files only; an anonymous file in memory stands in (Linux). What it writes
is unpacked into the records of `ciphertexts.py`, and what it is made to read is put together here from checked
coefficients around a template of this process's own making. No byte from elsewhere ever says to SEAL's reader how large
a thing is, so a malformed ciphertext cannot reach it.

A key is made from a 64-byte secret, at every site that is given the secret, by SEAL's own sampler over BLAKE2X; the
`key_id` is a digest of the key itself, so that a SEAL which samples otherwise is noticed and never used. Encryption
draws its own entropy from the system each time: the secret seeds the key and nothing else.
"""

import hashlib
import os
import secrets
import struct
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from protocol.errors import EncryptionError
from protocol.homomorphic.ciphertexts import SEED_BYTES, Coefficients, Records, coefficients_of, packed, seeds_of
from protocol.homomorphic.packing import Slots
from protocol.homomorphic.parameters import PARAMETERS, Parameters, check_parameters

SECRET_BYTES = 64
INSTALL = "Install the package with its extra: pip install 'wardround[encryption]'."
_HEADER = struct.Struct("<HBBBBHQ")
_PREAMBLE_BYTES = 97
"""Of a ciphertext in SEAL's format 4: parameters' id 32, flags and sizes 41, an array's header 16 and length 8."""
_GENERATOR_BYTES = 17
"""Between the coefficients and the seed: the header and kind of the generator."""
_NO_COMPRESSION, _ZSTANDARD = 0, 2


@dataclass(frozen=True, repr=False)
class KeySecret:
    """What a key is made from. Whoever holds it can read every ciphertext of the study; it is never shown."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != SECRET_BYTES:
            raise EncryptionError(f"A key's secret has {SECRET_BYTES} bytes.")

    @classmethod
    def generate(cls) -> "KeySecret":
        """Draw a new secret from the system's entropy."""
        return cls(secrets.token_bytes(SECRET_BYTES))


class SecretKeyCipher:
    """Encrypts, expands and decrypts under one key. Not for several threads at once."""

    def __init__(self, secret: KeySecret, parameters: Parameters = PARAMETERS) -> None:
        self.parameters = parameters
        self._seal = _sealapi()
        self._context = _context(parameters)
        key = _key_from(self._seal, secret, parameters)
        self.key_id = _digest_of_key(key, parameters)
        self._encryptor = self._seal.Encryptor(self._context, key)
        self._decryptor = self._seal.Decryptor(self._context, key)
        self._encoder = self._seal.BatchEncoder(self._context)
        self._evaluator = self._seal.Evaluator(self._context)
        self._file = _MemoryFile()
        self._template = self._own_template()

    def encrypt(self, slots: Slots) -> Records:
        """Encrypt one ciphertext's slots with fresh randomness. Shapes: slots (degree,); result (1, byte)."""
        if slots.shape != (self.parameters.degree,) or int(slots.max()) >= self.parameters.plain_modulus:
            raise EncryptionError("Expected one value below the plain modulus for each slot.")
        plain = self._seal.Plaintext()
        self._encoder.encode(slots.tolist(), plain)
        body = self._written(self._encryptor.encrypt_symmetric(plain))
        start, end = _PREAMBLE_BYTES, len(body) - SEED_BYTES - _GENERATOR_BYTES
        coefficients = np.frombuffer(body[start:end], "<u8").astype(np.uint64)
        shaped = coefficients.reshape(1, len(self.parameters.data_primes), self.parameters.degree)
        seed = np.frombuffer(body[-SEED_BYTES:], np.uint8)[None]
        return np.concatenate([seed, packed(shaped)], axis=1)

    def add(self, summands: list[Records]) -> "SummedCiphertext":
        """Expand one record of each site and add them, by SEAL's own addition.

        Shapes: each record (1, byte).
        Raises: EncryptionError if a record holds a coefficient out of range, or there are too many.
        """
        if not 1 <= len(summands) <= self.parameters.most_summands:
            raise EncryptionError(f"A sum has 1 to {self.parameters.most_summands} ciphertexts.")
        total = self._expanded(summands[0])
        for record in summands[1:]:
            self._evaluator.add_inplace(total, self._expanded(record))
        return SummedCiphertext(total)

    def first_polynomial(self, summed: "SummedCiphertext") -> Coefficients:
        """Return the first polynomial of a sum, to be compared with the hub's."""
        primes, degree = len(self.parameters.data_primes), self.parameters.degree
        body = self._written(summed.ciphertext)
        values = np.frombuffer(body[_PREAMBLE_BYTES : _PREAMBLE_BYTES + primes * degree * 8], "<u8")
        return values.astype(np.uint64).reshape(1, primes, degree)

    def decrypt(self, summed: "SummedCiphertext") -> Slots:
        """Return the slots of a sum.

        Raises: EncryptionError if the error has grown beyond what decrypts exactly.
        """
        if self._decryptor.invariant_noise_budget(summed.ciphertext) < 1:
            raise EncryptionError("A sum of ciphertexts cannot be decrypted exactly: one is damaged or foreign.")
        plain = self._seal.Plaintext()
        self._decryptor.decrypt(summed.ciphertext, plain)
        return np.array(self._encoder.decode_uint64(plain), np.uint64)

    def _expanded(self, record: Records) -> Any:
        coefficients = coefficients_of(record, self.parameters)
        body = b"".join(
            (
                self._template.preamble,
                coefficients.astype("<u8").tobytes(),
                self._template.generator,
                seeds_of(record).tobytes(),
            )
        )
        ciphertext = self._seal.Ciphertext()
        header = _HEADER.pack(*self._template.header[:4], _NO_COMPRESSION, 0, _HEADER.size + len(body))
        self._file.write(header + body)
        ciphertext.load(self._context, self._file.path)
        return ciphertext

    def _own_template(self) -> "_Template":
        body = self._written(self._encryptor.encrypt_zero_symmetric())
        values = len(self.parameters.data_primes) * self.parameters.degree
        if len(body) != _PREAMBLE_BYTES + values * 8 + _GENERATOR_BYTES + SEED_BYTES:
            raise EncryptionError("This TenSEAL writes ciphertexts in another format. Install the pinned version.")
        generator = body[-SEED_BYTES - _GENERATOR_BYTES : -SEED_BYTES]
        header = _HEADER.unpack(self._file.read()[: _HEADER.size])
        return _Template(header, body[:_PREAMBLE_BYTES], generator)

    def _written(self, seal_object: Any) -> bytes:
        """Return what SEAL saves, without its header and compression. The bytes are of this process's own making."""
        self._file.clear()
        seal_object.save(self._file.path)
        data = self._file.read()
        compression = _HEADER.unpack(data[: _HEADER.size])[4]
        if compression == _NO_COMPRESSION:
            return data[_HEADER.size :]
        if compression != _ZSTANDARD:
            raise EncryptionError("This TenSEAL compresses in another way. Install the pinned version.")
        return zstandard.ZstdDecompressor().decompressobj().decompress(data[_HEADER.size :])


@dataclass(frozen=True)
class SummedCiphertext:
    """A sum within this process; it is never written as it is."""

    ciphertext: Any


@dataclass(frozen=True)
class _Template:
    """What surrounds coefficients and seed in SEAL's format."""

    header: tuple[int, ...]
    preamble: bytes
    generator: bytes


class _MemoryFile:
    """An anonymous file in memory, by a name that SEAL can open."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("ciphertext")
        weakref.finalize(self, os.close, self._descriptor)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def clear(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def write(self, data: bytes) -> None:
        self.clear()
        written = os.pwrite(self._descriptor, data, 0)
        if written != len(data):
            raise EncryptionError("There is no memory left for a ciphertext.")

    def read(self) -> bytes:
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)


def key_id_of(secret: KeySecret, parameters: Parameters = PARAMETERS) -> str:
    """Return the public name of a key: equal at all sites that made the same key."""
    return _digest_of_key(_key_from(_sealapi(), secret, parameters), parameters)


def require_library() -> None:
    """Find out that a site cannot encrypt before it has trained for it.

    Raises: EncryptionError with what to install.
    """
    _sealapi()


def _sealapi() -> Any:
    try:
        from tenseal import sealapi
    except ImportError as error:
        raise EncryptionError(f"Homomorphic encryption needs TenSEAL. {INSTALL}") from error
    if not hasattr(os, "memfd_create"):
        raise EncryptionError("Homomorphic encryption needs Linux. Choose secure aggregation by masking.")
    return sealapi


def _encryption_parameters(seal: Any, parameters: Parameters) -> Any:
    made = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    made.set_poly_modulus_degree(parameters.degree)
    made.set_coeff_modulus(seal.CoeffModulus.Create(parameters.degree, parameters.coefficient_bits))
    made.set_plain_modulus(seal.PlainModulus.Batching(parameters.degree, parameters.plain_modulus.bit_length()))
    found = [modulus.value() for modulus in (*made.coeff_modulus(), made.plain_modulus())]
    if found != [*parameters.data_primes, parameters.special_prime, parameters.plain_modulus]:
        raise EncryptionError("This TenSEAL finds other primes than the parameters name. Install the pinned version.")
    return made


@lru_cache(maxsize=2)
def _context(parameters: Parameters) -> Any:
    check_parameters(parameters)
    seal = _sealapi()
    context = seal.SEALContext(_encryption_parameters(seal, parameters), True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise EncryptionError("SEAL refuses the parameters. Install the pinned version of TenSEAL.")
    return context


def _key_from(seal: Any, secret: KeySecret, parameters: Parameters) -> Any:
    # A context of its own: its generator is seeded, and must never be the one that encryption draws from.
    check_parameters(parameters)
    seeded = _encryption_parameters(seal, parameters)
    seeded.set_random_generator(seal.Blake2xbPRNGFactory(list(struct.unpack("<8Q", secret.raw))))
    context = seal.SEALContext(seeded, False, seal.SEC_LEVEL_TYPE.TC128)
    return seal.KeyGenerator(context).secret_key()


def _digest_of_key(key: Any, parameters: Parameters) -> str:
    count = (len(parameters.data_primes) + 1) * parameters.degree
    plain = key.data()
    values: NDArray[np.uint64] = np.array([plain.data(index) for index in range(count)], np.uint64)
    hasher = hashlib.sha256(b"wardround.bfv-key/1")
    hasher.update(values.astype("<u8").tobytes())
    return "sha256:" + hasher.hexdigest()
