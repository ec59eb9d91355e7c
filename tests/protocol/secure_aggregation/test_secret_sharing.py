"""Shamir's shares: enough of them give the secret, fewer fit every secret."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import MaskingError
from protocol.secure_aggregation.secret_sharing import PRIME, SECRET_BYTES, join_shares, split_secret


@settings(max_examples=40, deadline=None)
@given(st.data(), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_any_threshold_of_shares_gives_the_secret(data: st.DataObject, secret: bytes) -> None:
    count = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, count))
    shares = split_secret(secret, threshold, range(1, count + 1))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert join_shares({x: shares[x] for x in chosen}, threshold) == secret


def test_fewer_shares_fit_every_secret_equally_well() -> None:
    # With the shares at 2 and 3 of a quadratic, each possible secret is on exactly one polynomial through them.
    shares = split_secret(bytes(31) + b"\x05", 3, [1, 2, 3])
    for imagined in (bytes(32), bytes([255]) * 32):
        value = int.from_bytes(imagined, "big")
        y2, y3 = (int.from_bytes(shares[x], "big") for x in (2, 3))
        slope = (9 * (y2 - value) - 4 * (y3 - value)) * pow(6, -1, PRIME) % PRIME
        bend = (2 * (y3 - value) - 3 * (y2 - value)) * pow(6, -1, PRIME) % PRIME
        assert (value + 2 * slope + 4 * bend) % PRIME == y2
        assert (value + 3 * slope + 9 * bend) % PRIME == y3


def test_the_field_is_a_prime_above_every_secret() -> None:
    assert PRIME > 1 << (8 * SECRET_BYTES)
    for _ in range(20):  # Fermat: a composite number passes one of these with a chance of at most a half
        base = 2 + secrets.randbelow(PRIME - 3)
        assert pow(base, PRIME - 1, PRIME) == 1


def test_too_few_shares_or_strange_ones_are_refused() -> None:
    shares = split_secret(bytes(32), 3, [1, 2, 3, 4])
    with pytest.raises(MaskingError, match="3 shares are needed, 2 are there"):
        join_shares({1: shares[1], 2: shares[2]}, 3)
    with pytest.raises(MaskingError, match="33 bytes"):
        join_shares({**shares, 1: b"short"}, 3)
    with pytest.raises(MaskingError, match="distinct"):
        split_secret(bytes(32), 2, [1, 1])
    with pytest.raises(MaskingError, match="32 bytes"):
        split_secret(b"short", 2, [1, 2])
