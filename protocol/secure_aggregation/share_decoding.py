"""The secret that shares give although some of them are wrong, and which these are. Pure.

What is found is checked with the commitment that the secret's owner signed, so that wrong shares can only hide it.
Where all choices of enough shares are few they are tried, which passes over every wrong share beyond the threshold;
else the error locator of Berlekamp and Welch finds up to half as many.
Source: Welch and Berlekamp 1986 (US patent 4,633,470); Gemmell and Sudan 1992 for the form used here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import comb

from protocol.errors import MaskingError
from protocol.secure_aggregation.secret_sharing import PRIME, element_of, join_shares, value_at_point

MOST_CHOICES = 1000
CLOSED = "The shares do not give the secret that the member committed to. The sum stays closed."


def decode_shares(
    shares: Mapping[int, bytes], threshold: int, is_secret: Callable[[bytes], bool], suspected: frozenset[int]
) -> tuple[bytes, frozenset[int]]:
    """Return the secret, and the points whose shares do not fit it; those of suspected points are tried last.

    Raises: MaskingError if there are too few shares, or no choice of enough gives what `is_secret` accepts.
    """
    if len(shares) < threshold:
        join_shares(shares, threshold)
    usable = {x: share for x, share in shares.items() if _is_element(share)}
    for chosen in _choices(usable, threshold, suspected):
        secret = _joined({x: usable[x] for x in chosen}, threshold)
        if secret is not None and is_secret(secret):
            return secret, frozenset(x for x in shares if x not in chosen and not _fits(x, shares, chosen))
    raise MaskingError(CLOSED)


def _choices(shares: Mapping[int, bytes], threshold: int, suspected: frozenset[int]) -> Iterator[tuple[int, ...]]:
    points = sorted(shares, key=lambda x: (x in suspected, x))
    if len(points) < threshold:
        return
    yield tuple(points[:threshold])
    if comb(len(points), threshold) <= MOST_CHOICES:
        yield from combinations(points, threshold)
        return
    wrong = _located(points, [element_of(shares[x]) for x in points], threshold)
    right = [x for x in points if x not in wrong]
    if len(right) >= threshold:
        yield tuple(right[:threshold])


def _located(points: Sequence[int], values: Sequence[int], threshold: int) -> frozenset[int]:
    """Return the points where an error locator E vanishes: Q(x) = y E(x) at all points, deg E <= e, deg Q < k + e."""
    errors = (len(points) - threshold) // 2
    width = threshold + errors
    rows = []
    for x, y in zip(points, values, strict=True):
        powers = [pow(x, n, PRIME) for n in range(width)]
        rows.append(powers + [-y * power % PRIME for power in powers[: errors + 1]])
    locator = _null_vector(rows, width + errors + 1)[width:]
    if not any(locator):
        return frozenset()
    return frozenset(x for x in points if sum(c * pow(x, n, PRIME) for n, c in enumerate(locator)) % PRIME == 0)


def _null_vector(rows: list[list[int]], width: int) -> list[int]:
    """Return a vector other than zero that every row takes to zero, or zeros where there is none; rows are changed."""
    pivots: list[int] = []
    for column in range(width):
        place = next((r for r in range(len(pivots), len(rows)) if rows[r][column]), None)
        if place is None:
            found = [0] * width
            found[column] = 1
            for row, pivot in zip(rows, pivots, strict=False):
                found[pivot] = -row[column] % PRIME
            return found
        top = len(pivots)
        rows[top], rows[place] = rows[place], rows[top]
        inverse = pow(rows[top][column], -1, PRIME)
        rows[top] = [value * inverse % PRIME for value in rows[top]]
        for r, row in enumerate(rows):
            if r != top and (factor := row[column]):
                rows[r] = [(a - factor * b) % PRIME for a, b in zip(row, rows[top], strict=True)]
        pivots.append(column)
    return [0] * width


def _joined(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    try:
        return join_shares(shares, threshold)
    except MaskingError:
        return None


def _fits(x: int, shares: Mapping[int, bytes], chosen: Sequence[int]) -> bool:
    return _is_element(shares[x]) and element_of(shares[x]) == value_at_point({p: shares[p] for p in chosen}, x)


def _is_element(share: bytes) -> bool:
    try:
        element_of(share)
    except MaskingError:
        return False
    return True
