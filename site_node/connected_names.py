"""Groups of names that pairs connect: ids of one patient in a merge table, pseudonyms of one patient in the ledger."""

from collections.abc import Iterable


def connected(pairs: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Return the groups of names that pairs connect, over however many of them, each of two names or more. Pure."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        smaller, larger = sorted((group_of.get(one, {one}), group_of.get(other, {other})), key=len)
        larger |= smaller
        group_of |= dict.fromkeys(smaller | {one, other}, larger)
    return list({id(group): group for group in group_of.values()}.values())
