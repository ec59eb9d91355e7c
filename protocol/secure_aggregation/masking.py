"""Masks: what a site adds to its vector, and what the hub takes off the sum.

Site u, with the masked members v in the order of names, sends

    y_u = x_u + own(b_u) + sum over v > u of pair(s_uv) - sum over v < u of pair(s_uv)      (mod 2^bits)

In a sum over survivors the pairs among them cancel; the hub takes off the survivors' own masks, and the pairs between
survivors and lost members, whose keys it opens from shares. Each mask is a ChaCha20 stream under its own 32-byte key,
read as ring words: every word of the ring is equally likely, and no key serves two vectors.
Source: Bonawitz et al. 2017, section 4 and Figure 4.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from protocol.secure_aggregation.key_agreement import (
    commitment_to,
    mask_key,
    own_mask_key,
    public_key_of,
)
from protocol.secure_aggregation.ring import Ring, Words
from protocol.secure_aggregation.roster import Roster
from protocol.secure_aggregation.share_decoding import decode_shares

NONCE_BYTES = 16
CHUNK_BYTES = 1 << 20
_ZEROS = bytes(CHUNK_BYTES)


@dataclass(frozen=True)
class SignedMask:
    """A mask's key and whether it is added or subtracted."""

    key: bytes
    sign: Literal[1, -1]

    def __repr__(self) -> str:
        return "SignedMask(...)"


class MaskStreams:
    """Several masks, applied to a vector chunk after chunk; equal keys give equal streams."""

    def __init__(self, masks: Sequence[SignedMask], ring: Ring) -> None:
        self._ring = ring
        self._streams = [(Cipher(ChaCha20(m.key, bytes(NONCE_BYTES)), mode=None).encryptor(), m.sign) for m in masks]
        self._buffer = np.empty(CHUNK_BYTES, np.uint8)

    def apply(self, words: NDArray[Any]) -> None:
        """Add the next words of every mask to these, in place."""
        step = CHUNK_BYTES // self._ring.bytes_per_value
        for start in range(0, words.size, step):
            part = words[start : start + step]
            size = part.size * self._ring.bytes_per_value
            for stream, sign in self._streams:
                stream.update_into(memoryview(_ZEROS)[:size], self._buffer.data[:size])
                mask = self._buffer[:size].view(self._ring.dtype)
                np.add(part, mask, out=part) if sign > 0 else np.subtract(part, mask, out=part)


def masks_of_site(roster: Roster, members: Sequence[str], own: str, seed: bytes, private: bytes) -> list[SignedMask]:
    """Return the masks that a member adds: its own, and one with every other masked member."""
    pairs = [
        SignedMask(mask_key(private, roster, own, peer), 1 if peer > own else -1) for peer in members if peer != own
    ]
    return [SignedMask(own_mask_key(seed, roster, own), 1), *pairs]


def add_masks(vector: Words, masks: Sequence[SignedMask], ring: Ring) -> Words:
    """Return the masked vector."""
    masked = vector.astype(ring.dtype)  # a copy: what is masked is never changed in place
    MaskStreams(masks, ring).apply(masked)
    return masked


@dataclass(frozen=True)
class Opening:
    """What the survivors' reveals give: the shares of seeds of survivors, and of mask keys of the lost, by name."""

    members: tuple[str, ...]
    survivors: tuple[str, ...]
    seed_shares: Mapping[str, Mapping[str, bytes]]
    """Of whom -> revealed by whom -> share."""
    key_shares: Mapping[str, Mapping[str, bytes]]


def masks_on_sum(roster: Roster, opening: Opening) -> list[SignedMask]:
    """Return the masks that are to be added to the sum of the survivors' vectors, to be left with the sum alone.

    Raises: MaskingError if too few shares are there, or what they give is not what the members committed to.
    """
    return opened_masks(roster, opening)[0]


def opened_masks(roster: Roster, opening: Opening) -> tuple[list[SignedMask], tuple[str, ...]]:
    """Return the masks as `masks_on_sum` does, and who revealed a share that does not fit: it was passed over.

    One such share was spoiled by who revealed it or by who made it; shares of several members, by who revealed them.
    """
    taken: list[SignedMask] = []
    wrong: set[str] = set()
    for name in opening.survivors:
        shares, expected = opening.seed_shares.get(name, {}), roster.keys[name].seed_commitment
        seed = _opened(roster, shares, expected, commitment_to, wrong)
        taken.append(SignedMask(own_mask_key(seed, roster, name), -1))
    for lost in opening.members:
        if lost in opening.survivors:
            continue
        shares, expected = opening.key_shares.get(lost, {}), roster.keys[lost].mask_key
        private = _opened(roster, shares, expected, _public_text, wrong)
        # The survivor added +pair if the lost comes after it: that is taken off, and the other way round.
        taken += [
            SignedMask(mask_key(private, roster, lost, name), -1 if lost > name else 1) for name in opening.survivors
        ]
    return taken, tuple(sorted(wrong))


def _public_text(private: bytes) -> str:
    return public_key_of(private).hex()


def _opened(
    roster: Roster, shares: Mapping[str, bytes], expected: str, check: Callable[[bytes], str], wrong: set[str]
) -> bytes:
    """Join shares to the secret that was committed to; add to `wrong` whose shares do not fit it."""
    points = {roster.point(name): share for name, share in shares.items()}
    suspected = frozenset(roster.point(name) for name in wrong)
    secret, odd = decode_shares(points, roster.threshold, lambda found: check(found) == expected, suspected)
    wrong.update(roster.names[point - 1] for point in odd)
    return secret
