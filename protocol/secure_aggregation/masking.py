"""Masks: what a site adds to its vector, and what the hub takes off the sum.

Site u, with the masked members v in the order of names, sends

    y_u = x_u + own(b_u) + sum over v > u of pair(s_uv) - sum over v < u of pair(s_uv)      (mod 2^bits)

In a sum over survivors the pairs among them cancel; the hub takes off the survivors' own masks, and the pairs between
survivors and lost members, whose keys it opens from shares. Each mask is a ChaCha20 stream under its own 32-byte key,
read as ring words: every word of the ring is equally likely, and no key serves two vectors.
Source: Bonawitz et al. 2017, section 4 and Figure 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from protocol.errors import MaskingError
from protocol.secure_aggregation.key_agreement import (
    commitment_to,
    mask_key,
    own_mask_key,
    public_key_of,
)
from protocol.secure_aggregation.ring import Ring, Words
from protocol.secure_aggregation.roster import Roster
from protocol.secure_aggregation.secret_sharing import join_shares

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
    taken: list[SignedMask] = []
    for name in opening.survivors:
        seed = _opened(roster, opening.seed_shares.get(name, {}), roster.keys[name].seed_commitment, commitment_to)
        taken.append(SignedMask(own_mask_key(seed, roster, name), -1))
    for lost in opening.members:
        if lost in opening.survivors:
            continue
        private = _opened(roster, opening.key_shares.get(lost, {}), roster.keys[lost].mask_key, _public_text)
        # The survivor added +pair if the lost comes after it: that is taken off, and the other way round.
        taken += [
            SignedMask(mask_key(private, roster, lost, name), -1 if lost > name else 1) for name in opening.survivors
        ]
    return taken


def _public_text(private: bytes) -> str:
    return public_key_of(private).hex()


def _opened(roster: Roster, shares: Mapping[str, bytes], expected: str, check: Any) -> bytes:
    """Join shares and check the secret; one wrong share among more than enough is passed over."""
    holders = sorted(shares, key=roster.point)
    needed = roster.threshold
    for start in range(max(1, len(holders) - needed + 1)):
        chosen = {roster.point(name): shares[name] for name in holders[start : start + needed]}
        try:
            secret = join_shares(chosen, needed)
        except MaskingError:
            if len(holders) <= needed:
                raise
            continue
        if check(secret) == expected:
            return secret
    raise MaskingError("The shares do not give the secret that the member committed to. The sum stays closed.")
