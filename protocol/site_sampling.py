"""Which sites a round asks, where a study samples them: a draw that anybody can repeat. Pure.

Sites are ranked by the SHA-256 of (study, round, name), and the first are asked. Hub, sites and auditors compute it
alike, so that a hub cannot choose whom it asks. It hides nobody: who was drawn is public, and privacy accounting takes
no advantage of the draw (a site is charged as if it were asked in every round).

    >>> drawn_sites("sha256:" + "0" * 64, 1, ["anna", "bela", "clara"], 2)
    ['anna', 'bela']
"""

import math
from collections.abc import Iterable

from protocol.digest import Digest, digest_of

FRACTION_DECIMALS = 9
"""0.07 x 100 is a hair above 7 in binary; the fraction that a person wrote is meant."""


def sites_asked(candidates: int, fraction: float, minimum: int) -> int:
    """Return how many of so many sites a round asks: the fraction, rounded up, and never fewer than the minimum.

    Guarantee: at most `candidates`.
    """
    wanted = math.ceil(round(fraction * candidates, FRACTION_DECIMALS))
    return min(candidates, max(wanted, minimum))


def drawn_sites(study_digest: Digest, number: int, names: Iterable[str], count: int) -> list[str]:
    """Return the `count` sites that round `number` of a study asks, by name.

    Guarantee: a function of the study, the round and the set of names alone.
    """

    def rank(name: str) -> str:
        return digest_of({"purpose": "wardround.site-draw/1", "study": study_digest, "round": number, "site": name})

    return sorted(sorted(set(names), key=rank)[:count])
