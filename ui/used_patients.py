"""Of how many patients an update was made, as its receipt says: noised, with the interval that the noise leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

from ui import markup
from ui.wording import NONE, plural


@dataclass(frozen=True)
class Receipt:
    """The receipt that came with an update; `patients` is None where the study asks for no number.

    `low` and `high` hold the exact number 99 times of 100; `mean_low`, `mean_high` that of the last rounds together.
    `short`: the noise cannot explain that less than nine tenths of the told patients were used.
    """

    steps: int
    software: str
    told: int | None = None
    patients: int | None = None
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    mean_low: float | None = None
    mean_high: float | None = None
    mean_rounds: int | None = None
    short: bool | None = False


def receipt_facts(receipt: Receipt | None) -> list[tuple[str, str]]:
    """Return what a hospital's card says of its receipt, as names and values; nothing where none came."""
    if receipt is None:
        return []
    if receipt.patients is None:
        return [("patients used", "not asked for")]
    of = "" if receipt.told is None else f" of {receipt.told}"
    alone = f"about {max(0, receipt.patients)}{of}, {_range(receipt.low, receipt.high)}"
    found = [("patients used", f"{alone}: a fraction" if receipt.short else alone)]
    if receipt.mean_rounds is not None and receipt.mean_rounds > 1:
        over = f"in {plural(receipt.mean_rounds, 'round')}"
        found.append(
            (over, f"about {max(0.0, receipt.mean or 0.0):.0f}, {_range(receipt.mean_low, receipt.mean_high)}")
        )
    return found


def fraction_note(warnings: Sequence[str], number: int) -> str:
    """Return the box that says loudly that a round was trained on a fraction of the cohort; empty if none was."""
    if not warnings:
        return ""
    return markup.note("wait", f"Round {number} was trained on a fraction of the patients", points=list(warnings))


def fraction_mark(receipt: Receipt | None) -> str:
    """Return what stands behind the name of a hospital whose update was made of a fraction of its patients."""
    return ' <span class="wr-warn">(on a fraction of its patients)</span>' if receipt and receipt.short else ""


def _range(low: float | None, high: float | None) -> str:
    return NONE if low is None or high is None else f"{low:.0f} to {high:.0f}"
