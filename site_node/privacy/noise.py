"""The site's secret randomness: one cryptographic stream for each task and purpose.

The streams are ChaCha20, keyed by HKDF from the site's noise key, the digest of the whole RoundTask and the digest of
the cohort's manifest. A task that is run again draws the same patients and the same noise, so that a crash costs no
privacy; any other task, base version or cohort draws afresh. Nobody without the key can tell the noise from chance,
which a statistical generator (torch, numpy) does not promise.

Floating point. A Gaussian made in floating point can only hit some values, and which ones tells about the number it
was added to (Mironov 2012; Holohan and Braghin 2021 for Gaussians). So nothing is added in floating point as it comes:
sum and noise are both put on one grid of steps far below the noise's standard deviation (`GRID_BITS`) and far above
the resolution of the arithmetic. The result is always a point of the grid, it says nothing about the lower bits, and
rounding x on the grid plus noise is the same as rounding their sum: post-processing of the Gaussian mechanism. What
rounding adds to the sensitivity is taken off the clipping norm (`clipping_reserve`).
Left open, as in every such library: the time that drawing takes, and the tail beyond 9.4 deviations (mass 6e-21).

Sources: RFC 5869 (HKDF); RFC 8439 (ChaCha20); Box and Muller 1958; Mironov, "On significance of the least significant
bits for differential privacy", CCS 2012; Holohan and Braghin, "Secure random sampling in differential privacy",
ESORICS 2021; Ghosh et al. 2009 (two-sided geometric noise).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES = 32
COUNTER_BYTES, NONCE_BYTES = 8, 8
BLOCK_BYTES = 64
CIPHER_BYTES = BLOCK_BYTES << 32
"""Of one cipher's blocks the numbers have 32 bits (RFC 8439); the next cipher has the number's upper half as nonce."""
GRID_BITS = 24
"""A grid step is at most 2**-24 of the noise's standard deviation."""
NORMALS_AT_ONCE = 1 << 14
"""A block that a core's cache holds."""

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


class Purpose(StrEnum):
    """What a stream is drawn for; each purpose has a stream of its own, so that none shifts another."""

    SAMPLING = "sampling"
    IMAGES = "images"
    GRADIENTS = "gradients"
    AUGMENTATION = "augmentation"
    HISTOGRAMS = "histograms"
    ROUNDING = "rounding"
    QUALITY = "quality"
    COUNTS = "counts"
    RECEIPTS = "receipts"


class SecureStream:
    """An endless stream of uniform bits from ChaCha20; equal keys give equal streams.

    `position` is how many bytes were drawn. It follows from which patients were drawn, and is as secret as they are.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.move_to(0)

    def move_to(self, position: int) -> None:
        """Go on as a stream does of which so many bytes were drawn: ChaCha20 makes each block of its number alone."""
        block, within = divmod(position, BLOCK_BYTES)
        start = block.to_bytes(COUNTER_BYTES, "little") + bytes(NONCE_BYTES)
        self._cipher: CipherContext = Cipher(ChaCha20(self._key, start), mode=None).encryptor()
        self._cipher.update(bytes(within))
        self.position = position

    def words(self, count: int) -> Words:
        """Return the next independent uniform 64-bit words."""
        return np.frombuffer(self._bytes(8 * count), dtype="<u8").astype(np.uint64, copy=False)

    def _bytes(self, count: int) -> bytes:
        left = CIPHER_BYTES - self.position % CIPHER_BYTES
        if count < left:
            self.position += count
            return self._cipher.update(bytes(count))
        drawn = self._cipher.update(bytes(left))
        self.move_to(self.position + left)
        return drawn + self._bytes(count - left)

    def halves(self, count: int) -> NDArray[np.uint32]:
        """Return the next independent uniform 32-bit numbers."""
        return self.words((count + 1) // 2).view(np.uint32)[:count]

    def uniforms(self, count: int) -> Floats:
        """Return numbers in (0, 1], with full relative precision near zero."""
        return np.ldexp(self.words(count).astype(np.float64) + 1.0, -64)

    def permutation(self, size: int) -> NDArray[np.int64]:
        """Return the numbers below size in a random order."""
        return np.argsort(self.words(size), kind="stable")

    def normals(self, count: int) -> Floats:
        """Return independent standard normal numbers (Box and Muller: a radius and an angle make two)."""
        result = np.empty(count)
        for start in range(0, count, NORMALS_AT_ONCE):
            part = result[start : start + NORMALS_AT_ONCE]
            pairs = (part.size + 1) // 2
            radius = np.sqrt(-2.0 * np.log(self.uniforms(pairs)))
            angle = torch.from_numpy(2.0 * math.pi * self.uniforms(pairs))  # torch's sine takes a third of numpy's time
            part[:pairs] = radius * torch.cos(angle).numpy()
            part[pairs:] = (radius * torch.sin(angle).numpy())[: part.size - pairs]
        return result

    def two_sided_geometric(self, count: int, scale: float) -> NDArray[np.int64]:
        """Return integer noise with P(k) proportional to exp(-|k| / scale): the Laplace mechanism on counts."""
        ups, downs = (np.floor(-scale * np.log(self.uniforms(count))).astype(np.int64) for _ in range(2))
        return ups - downs


@dataclass(frozen=True)
class NoiseSource:
    """The streams of one task over one cohort. `key` is the site's noise key and never leaves the worker.

    Guarantee: the same key, task and cohort give the same streams; any other gives independent ones.
    """

    key: bytes
    task_digest: str
    cohort_digest: str

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"Expected a noise key of {KEY_BYTES} bytes. `wardround site init` makes one.")

    def __repr__(self) -> str:
        return f"NoiseSource(task_digest={self.task_digest!r})"

    @cached_property
    def sampling(self) -> SecureStream:
        """Return the stream that draws patients."""
        return self._stream(Purpose.SAMPLING)

    @cached_property
    def images(self) -> SecureStream:
        """Return the stream that draws among a patient's images."""
        return self._stream(Purpose.IMAGES)

    @cached_property
    def gradients(self) -> SecureStream:
        """Return the stream of the noise on gradients."""
        return self._stream(Purpose.GRADIENTS)

    @cached_property
    def augmentation(self) -> SecureStream:
        """Return the stream that varies images."""
        return self._stream(Purpose.AUGMENTATION)

    @cached_property
    def histograms(self) -> SecureStream:
        """Return the stream of the noise on held-out histograms."""
        return self._stream(Purpose.HISTOGRAMS)

    @cached_property
    def rounding(self) -> SecureStream:
        """Return the stream that rounds an update to integers."""
        return self._stream(Purpose.ROUNDING)

    @cached_property
    def quality(self) -> SecureStream:
        """Return the stream of the noise on the quality figures."""
        return self._stream(Purpose.QUALITY)

    @cached_property
    def counts(self) -> SecureStream:
        """Return the stream of the noise on the number of training patients."""
        return self._stream(Purpose.COUNTS)

    @cached_property
    def receipts(self) -> SecureStream:
        """Return the stream of the noise on the number of patients that a round used."""
        return self._stream(Purpose.RECEIPTS)

    def positions(self) -> dict[str, int]:
        """Return how many bytes were drawn of each stream that was drawn of."""
        return {name: stream.position for name, stream in vars(self).items() if isinstance(stream, SecureStream)}

    def move_to(self, positions: Mapping[str, int]) -> None:
        """Go on as a source does that has these `positions`.

        Raises: ValueError if one is no position of a stream of ours.
        """
        for name in positions.keys() | self.positions().keys():
            if name not in set(Purpose) or positions.get(name, 0) < 0:
                raise ValueError("Expected positions that a noise source has given.")
            getattr(self, name).move_to(positions.get(name, 0))

    def _stream(self, purpose: Purpose) -> SecureStream:
        info = "\n".join(("wardround.noise/1", purpose, self.task_digest, self.cohort_digest)).encode()
        return SecureStream(HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self.key))


def grid_step(deviation: float) -> float:
    """Return the power of two on whose multiples sum and noise of this standard deviation are put."""
    return math.ldexp(1.0, math.floor(math.log2(deviation)) - GRID_BITS)


def clipping_reserve(deviation: float, parameters: int) -> float:
    """Return how much rounding to the grid can add to one patient's L2 share: one step in every parameter."""
    return grid_step(deviation) * math.sqrt(parameters)


def add_gaussian_noise(total: Floats, deviation: float, stream: SecureStream, *, out: Floats | None = None) -> Floats:
    """Add Gaussian noise to a sum, on a grid; `out` takes the result and may be the sum itself.

    Shapes: total, out and result (parameter,) float64.
    Guarantee: every value of the result is a multiple of `grid_step(deviation)`; with a sum of sensitivity s before
        rounding, this is post-processing of the Gaussian mechanism of sensitivity s + `clipping_reserve`.
    Raises: ValueError if the deviation is not positive and finite, or the sum is not finite.
    Source: see the module.
    """
    if not (deviation > 0 and math.isfinite(deviation)):
        raise ValueError("Expected a positive standard deviation of the noise.")
    if not np.isfinite(total).all():
        raise ValueError("Expected a finite sum; patients whose gradient is not finite count as zero.")
    step = grid_step(deviation)
    result = np.empty(total.size) if out is None else out
    for start in range(0, total.size, NORMALS_AT_ONCE):
        part = slice(start, start + NORMALS_AT_ONCE)
        noise = np.rint(stream.normals(total[part].size) * (deviation / step))
        result[part] = (np.rint(total[part] / step) + noise) * step
    return result
