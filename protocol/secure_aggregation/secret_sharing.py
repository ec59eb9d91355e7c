"""Shamir's secret sharing over a prime field: any `threshold` shares give the secret, fewer say nothing about it.

The field is the integers modulo 2^256 + 297, the least prime above 2^256, so that every 32-byte secret is one element
and nothing is cut into halves. A share is the value at x = 1, 2, ... of a random polynomial whose value at 0 is the
secret.
Source: Shamir, "How to share a secret", 1979.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

from protocol.errors import MaskingError

PRIME = (1 << 256) + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split_secret(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, bytes]:
    """Return a share for each point; the coefficients are fresh from the system's entropy.

    Raises: MaskingError for a secret of another length, points that are not distinct and positive, or too few of them.
    """
    if len(secret) != SECRET_BYTES:
        raise MaskingError(f"A shared secret has {SECRET_BYTES} bytes.")
    if len(set(points)) != len(points) or any(not 0 < x < PRIME for x in points) or not 0 < threshold <= len(points):
        raise MaskingError("Expected distinct positive points, at least as many as the threshold.")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {x: _value_at(coefficients, x).to_bytes(SHARE_BYTES, "big") for x in points}


def join_shares(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret from the shares at the `threshold` lowest points.

    Raises: MaskingError if there are fewer, or they are no shares of a 32-byte secret.
    """
    if len(shares) < threshold or threshold < 1:
        raise MaskingError(f"{threshold} shares are needed, {len(shares)} are there. Nothing can be opened.")
    points = tuple(sorted(shares)[:threshold])
    values = [element_of(shares[x]) for x in points]
    secret = sum(y * factor for y, factor in zip(values, _factors_at(points, 0), strict=True)) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise MaskingError("The shares do not belong together.")
    return secret.to_bytes(SECRET_BYTES, "big")


def _value_at(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


def value_at_point(shares: Mapping[int, bytes], x: int) -> int:
    """Return the value at x of the polynomial through these shares."""
    points = tuple(sorted(shares))
    factors = _factors_at(points, x)
    return sum(element_of(shares[p]) * factor for p, factor in zip(points, factors, strict=True)) % PRIME


@lru_cache(maxsize=256)
def _factors_at(points: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return what each point's value counts for at another; the same for all secrets that the same members open."""
    factors = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * (other - at) % PRIME
                below = below * (other - x) % PRIME
        factors.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(factors)


def element_of(share: bytes) -> int:
    """Return a share as an element of the field.

    Raises: MaskingError if it is none.
    """
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise MaskingError(f"A share has {SHARE_BYTES} bytes and lies in the field.")
    return value
