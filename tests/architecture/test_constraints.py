"""constraints.txt pins everything that an installation may bring, on the oldest Python that Debian gives too."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = {
    canonicalize_name(line.split("==")[0])
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if re.match(r"^[A-Za-z0-9]", line)
}
# What only a CUDA wheel of torch brings; `scripts/lock` leaves it out, so that a CPU wheel satisfies the list too.
OF_CUDA = ("nvidia-", "triton", "cuda-")


def closure(python: str) -> Iterator[tuple[str, str]]:
    """Yield (who needs it, what) for everything that wardround[dev] needs on a Python, as far as it is installed."""
    environment = {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    waiting, seen = [("wardround", "dev")], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # needed on another Python only: its own needs cannot be read here
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra}):
                needed = canonicalize_name(requirement.name)
                yield name, needed
                waiting += [(needed, wanted) for wanted in ("", *requirement.extras)]


@pytest.mark.parametrize("python", ["3.11.2", "3.11.7", "3.12.3", "3.13.5"])
def test_everything_that_an_installation_brings_is_pinned(python: str) -> None:
    missing = {
        f"{needed}, for {name}"
        for name, needed in closure(python)
        if needed not in PINS and needed != "wardround" and not needed.startswith(OF_CUDA)
    }
    assert missing == set(), "run `make lock`; what only another Python needs belongs into scripts/lock, as `elsewhere`"
