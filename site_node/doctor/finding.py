"""What the doctor found: one sentence with its remedy, and what a script learns of all of them together.

Levels: `ok`; `warning`, which will become a problem or costs something; `problem`, with which the site does not work;
`unseen`, what this user may not look at (rule 1 keeps a site's processes apart, and the doctor too).
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem", "unseen"]
Part = Literal["settings", "gate", "worker", "agent", "ingest"]
PARTS: tuple[Part, ...] = ("settings", "gate", "worker", "agent", "ingest")
HEALTHY, WARNED, FAILED = 0, 1, 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. It holds no patient id, no DICOM value and no secret."""

    check: str
    level: Level
    says: str
    remedy: str = ""

    def as_json(self, part: Part) -> dict[str, Any]:
        """Return it for a script, with the part of the site that looked."""
        return {"part": part, **asdict(self)}


def fine(check: str, says: str) -> Finding:
    """Return a finding with which nothing is wrong."""
    return Finding(check, "ok", says)


def warning(check: str, says: str, remedy: str) -> Finding:
    """Return what will become a problem, or costs something."""
    return Finding(check, "warning", says, remedy)


def problem(check: str, says: str, remedy: str) -> Finding:
    """Return what keeps the site from working."""
    return Finding(check, "problem", says, remedy)


def exit_status(levels: Iterable[Level]) -> int:
    """Return 2 if there is a problem, 1 if something is to be heeded or could not be seen, else 0.

    >>> exit_status(["ok", "unseen"]), exit_status(["warning", "problem"]), exit_status([])
    (1, 2, 0)
    """
    found = set(levels)
    return FAILED if "problem" in found else WARNED if found - {"ok"} else HEALTHY
