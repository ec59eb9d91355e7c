"""The site's clock beside the hub's: tokens and heartbeats carry times, and leases end by them.

The hub's `Date` header is cut to whole seconds, and the answer was under way for a part of the time between asking and
receiving; what cannot be told apart from these is no skew. Whether the kernel's clock is kept by NTP is asked with
adjtimex(2), which needs no rights and no daemon of a certain kind.
Source: RFC 9110 6.6.1 (Date); adjtimex(2) of the Linux manual pages (TIME_ERROR).
"""

import ctypes
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from site_node.doctor.finding import Finding, fine, problem, warning

CHECK = "clock"
MOST_SECONDS = 60.0
"""By so much the hub refuses tokens (docs/operations.md)."""
HEEDED_SECONDS = 5.0
HALF_A_SECOND = 0.5
TIME_ERROR = 5
TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux
REMEDY = "Let NTP keep the clock: `timedatectl set-ntp true`, or chrony with the hospital's time server."


@dataclass(frozen=True)
class Skew:
    """How many seconds the site's clock is ahead of the hub's, and how far off this figure may be."""

    ahead_seconds: float
    uncertain_seconds: float


def skew_of(date: str | None, asked_at: float, answered_at: float) -> Skew | None:
    """Return the skew that a `Date` header tells, or None if there is none that can be read.

    Units: seconds since 1970, by the site's clock.
    """
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    at_hub = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() + HALF_A_SECOND
    middle = (asked_at + answered_at) / 2
    return Skew(middle - at_hub, HALF_A_SECOND + max(0.0, answered_at - asked_at) / 2)


def verdict_on_skew(skew: Skew | None) -> Finding:
    """Say what a skew means. Pure."""
    if skew is None:
        return warning(CHECK, "The hub's answer carries no Date header, so the clocks were not compared.", REMEDY)
    certain = abs(skew.ahead_seconds) - skew.uncertain_seconds
    way = "ahead of" if skew.ahead_seconds > 0 else "behind"
    says = f"The site's clock is {abs(skew.ahead_seconds):.0f} seconds {way} the hub's."
    if certain >= MOST_SECONDS:
        return problem(CHECK, f"{says} The hub refuses what comes with such times.", REMEDY)
    if certain >= HEEDED_SECONDS:
        return warning(CHECK, says, REMEDY)
    return fine(CHECK, f"The site's clock and the hub's agree within {certain + 2 * skew.uncertain_seconds:.1f} s.")


def verdict_on_ntp(is_kept: bool | None) -> Finding:
    """Say what the kernel tells of NTP. Pure."""
    if is_kept is None:
        return fine("ntp", "This machine does not tell whether NTP keeps its clock.")
    if not is_kept:
        return warning("ntp", "No time server keeps this machine's clock.", REMEDY)
    return fine("ntp", "A time server keeps this machine's clock.")


def is_kept_by_ntp() -> bool | None:
    """Ask the kernel whether its clock is synchronised; None where it may not be asked (some containers)."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def now() -> float:
    """Return the site's own time, in seconds since 1970."""
    return datetime.now(UTC).timestamp()
