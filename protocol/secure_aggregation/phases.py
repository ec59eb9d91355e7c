"""The legal order of a masked round: two tables of (phase, event) -> phase, and when the hub leaves a phase. Pure.

    hub   keys -> shares -> uploads -> seen -> reveals -> opened           any but opened -> failed
    site  keyed -> shared -> masked -> seen -> revealed                    any but revealed -> ended

Up to n - threshold members may be lost in any phase; with fewer left than the threshold the round fails, and nothing
was revealed: a site reveals in its last phase only, once, for one list of survivors, and has no secrets afterwards.

    >>> phase_verdict(PhaseStanding(expected=5, arrived=4, gone=0, needed=4, overdue=True))
    'close'
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from protocol.errors import MaskingError


class HubPhase(StrEnum):
    """What the hub waits for."""

    KEYS = "keys"
    SHARES = "shares"
    UPLOADS = "uploads"
    SEEN = "seen"
    REVEALS = "reveals"
    OPENED = "opened"
    FAILED = "failed"


class SitePhase(StrEnum):
    """How far a site has gone."""

    KEYED = "keyed"
    SHARED = "shared"
    MASKED = "masked"
    SEEN = "seen"
    REVEALED = "revealed"
    ENDED = "ended"


class SiteEvent(StrEnum):
    """What moves a site."""

    ROSTER = "roster"
    DELIVERY = "delivery"
    SURVIVORS = "survivors"
    PROOF = "proof"
    GIVEN_UP = "given-up"


_H, _S, _E = HubPhase, SitePhase, SiteEvent
NEXT_HUB_PHASE: dict[HubPhase, HubPhase] = {
    _H.KEYS: _H.SHARES,
    _H.SHARES: _H.UPLOADS,
    _H.UPLOADS: _H.SEEN,
    _H.SEEN: _H.REVEALS,
    _H.REVEALS: _H.OPENED,
}
SITE_TABLE: dict[tuple[SitePhase, SiteEvent], SitePhase] = {
    (_S.KEYED, _E.ROSTER): _S.SHARED,
    (_S.SHARED, _E.DELIVERY): _S.MASKED,
    (_S.MASKED, _E.SURVIVORS): _S.SEEN,
    (_S.SEEN, _E.PROOF): _S.REVEALED,
    **{(phase, _E.GIVEN_UP): _S.ENDED for phase in (_S.KEYED, _S.SHARED, _S.MASKED, _S.SEEN)},
}
CLOSED_BY_THE_THRESHOLD = frozenset({_H.SEEN, _H.REVEALS})
"""Phases in which a further answer adds nothing: the hub goes on with the first that are enough."""


@dataclass(frozen=True)
class PhaseStanding:
    """How many answers were expected, came, and can no longer come; how many are needed; whether time is up."""

    expected: int
    arrived: int
    gone: int
    needed: int
    overdue: bool


def phase_verdict(standing: PhaseStanding, *, enough_is_all: bool = False) -> Literal["wait", "close", "fail"]:
    """Say whether the hub waits on, goes on to the next phase, or gives the round up."""
    reached = standing.arrived >= standing.needed
    if reached and enough_is_all:
        return "close"
    possible = standing.expected - standing.gone
    if standing.overdue or standing.arrived >= possible:
        return "close" if reached else "fail"
    return "wait" if possible >= standing.needed else "fail"


def next_site_phase(phase: str, event: SiteEvent) -> SitePhase:
    """Return where the event leads.

    Raises: MaskingError if the event is not legal in this phase.
    """
    try:
        return SITE_TABLE[SitePhase(phase), event]
    except KeyError as error:
        raise MaskingError(f"A site that has {phase} knows no {event.value} any more.") from error
