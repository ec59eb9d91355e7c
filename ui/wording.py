"""Numbers, times and states in the words that people read. Pure; no markup."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

NONE = "—"
HIDDEN = "<5"

TONES: dict[str, str] = {
    **dict.fromkeys(("completed", "complete", "approved", "accepted", "enrolled", "online"), "good"),
    **dict.fromkeys(
        ("proposed", "invited", "open", "waiting", "awaiting", "paused", "overdue", "late", "initialising"), "wait"
    ),
    **dict.fromkeys(("failed", "refused", "rejected", "withdrawn", "suspended", "offline"), "bad"),
    **dict.fromkeys(
        ("running", "counting", "training", "evaluating", "opening", "aggregating", "sending", "delivered"), "busy"
    ),
}
WORDS: dict[str, str] = {
    "proposed": "waiting for hospitals",
    "awaiting": "waits for a decision",
    "counting": "patients are being counted",
    "initialising": "preparing",
    "opening": "hospitals open the sum",
    "aggregating": "combining updates",
    "open": "asked",
    "delivered": "working",
    "accepted": "accepted",
    "cancelled": "no longer needed",
    "not-approved": "the study is not approved there",
    "approval-expired": "the approval has expired",
    "approval-withdrawn": "the approval was withdrawn",
    "policy": "the hospital's policy does not allow it",
    "budget-spent": "the hospital's privacy budget is spent",
    "ledger-behind": "the hospital's privacy ledger is behind its last countersigned state",
    "too-many-tasks": "more tasks than the approval covers",
    "round-already-answered": "the round was answered before",
    "unknown-study": "the study is not known there",
    "bad-task": "the task could not be read",
    "too-few-patients": "too few patients match",
    "labels-unusable": "the labels there cannot be used",
    "no-held-out-patients": "no held-out patients there",
    "unknown-network": "the network, or an argument of it, is not permitted there; correct network.name or "
    "network.arguments in the study",
    "unknown-tensor": "the network has no tensor that personal.keep names, or none would be learnt together; correct "
    "personal.keep in the study",
    "base-unavailable": "the model could not be fetched",
    "not-finite": "training did not stay finite",
    "personal-model-diverged": "its personal model did not stay finite, so there is none to judge; lower "
    "training.learning_rate or personal.ditto",
    "personal-model-gone": "its personal model of that version is not kept any more, so there is none to judge",
    "out-of-memory": "not enough memory there",
    "device-lost": "its GPU failed while it trained",
    "disk-full": "the disk is full there",
    "unknown-peer": "another hospital's key is not the one that is pinned there",
    "internal": "a fault at the hospital; its own log says more",
}


def words_of(state: str | None) -> str:
    """Return a state or reason of the protocol in plain words."""
    return WORDS.get(state, state.replace("-", " ")) if state else NONE


def tone_of(state: str | None) -> str:
    """Return the tone of a state: good, wait, bad, busy or calm."""
    return TONES.get(state or "", "calm")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with fixed digits, or a dash."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a fraction as a percentage."""
    return NONE if value is None else f"{100 * value:.0f} %"


def epsilon(value: float | None) -> str:
    """Return an epsilon; None means that there is no differential privacy."""
    return "none" if value is None else f"{value:.2f}"


def per_unit(unit: str) -> str:
    """Return whose privacy an epsilon is about, as it stands beside a figure."""
    return "per hospital" if unit == "site" else "per patient"


def power_of_ten(value: float) -> str:
    """Return a small number as people write it: 10⁻⁵, 2·10⁻⁵."""
    digits, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1.0" else f"{digits.removesuffix('.0')}·{power}"


def count(value: int | None) -> str:
    """Return a count of patients; None means that the hub hides a small one."""
    return HIDDEN if value is None else f"{value:,}".replace(",", "\u202f")


def told_count(value: int | None, *, noised: bool) -> str:
    """Return a number of patients as a hospital told it: with noise it is about so many."""
    return count(value) if value is None or not noised else f"about {count(value)}"


def interval(low: float | None, high: float | None) -> str:
    """Return a confidence interval, or a dash."""
    return NONE if low is None or high is None else f"{low:.3f} to {high:.3f}"


def size(byte_count: int | None) -> str:
    """Return bytes in the unit that people would use."""
    if byte_count is None:
        return NONE
    value = float(byte_count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return NONE


def duration(seconds: float | None) -> str:
    """Return a span of time, rounded to what matters."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 129600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def ago(moment: float | None, now: float) -> str:
    """Return how long ago something was."""
    if moment is None:
        return "never"
    return "just now" if now - moment < 5 else f"{duration(now - moment)} ago"


def clock(moment: float | None, zone: str | None = None) -> str:
    """Return a moment as day and time in the reader's time zone, which is named when it is not theirs."""
    if moment is None:
        return NONE
    place = _zone(zone)
    text = f"{datetime.fromtimestamp(moment, place):%-d %b %Y, %H:%M}"
    return text if zone else f"{text} UTC"


def short_digest(digest: str | None) -> str:
    """Return the first ten hexadecimal digits of a digest."""
    return digest.split(":")[-1][:10] if digest else NONE


def plural(amount: int, one: str, many: str | None = None) -> str:
    """Return an amount with its noun."""
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def _zone(name: str | None) -> tzinfo:
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
