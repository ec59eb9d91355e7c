"""Who looks at what: each part of a site is examined by the user that it runs as, and sees what that process sees.

Rule 1 keeps a site's processes apart, and no single process of the doctor's joins them again. Run by root, it starts
one process for each part that has another user, with that user's rights and nothing more; run by a part's own user it
looks at that part, and says what it may not see. `settings` is what everybody of the site may read.
"""

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from site_node.doctor.finding import PARTS, Finding, Part, problem
from site_node.doctor.separation import folders_of
from site_node.settings import SitePaths

ROOT = 0
SECONDS = 180
Way = Literal["here", "as its user", "unseen"]
RESTARTED = "Run the doctor as root: it then looks at each part as that part's own user. Or run it as that user too."


def owners_of(paths: SitePaths) -> dict[Part, int]:
    """Return the number of the user that owns each part's folder; a part without a folder is left out."""
    return {part: folder.stat().st_uid for part, folder in folders_of(paths).items() if folder.exists()}


def ways_of(user: int, owners: Mapping[Part, int]) -> dict[Part, Way]:
    """Tell how each part is looked at. Pure.

    >>> ways_of(0, {"gate": 0, "worker": 7})["worker"], ways_of(7, {"gate": 0, "worker": 7})["gate"]
    ('as its user', 'unseen')
    """
    ways: dict[Part, Way] = {}
    for part in PARTS:
        owner = owners.get(part, user)
        ways[part] = "here" if owner == user else "as its user" if user == ROOT else "unseen"
    return ways


def unseen(part: Part, owner: int) -> Finding:
    """Say that a part was not looked at, because it is another user's."""
    return Finding(part, "unseen", f"Not looked at: the {part}'s folder belongs to {name_of(owner)}.", RESTARTED)


def name_of(user: int) -> str:
    """Return a user's name, or its number where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def examined_as(root: Path, part: Part, owner: int, group: int) -> list[dict[str, Any]]:
    """Look at one part in a process of its owner; return its findings as JSON. Only root can.

    `group` is the folder's, for a user that has a number and no name, as in many containers.
    """
    try:
        entry = pwd.getpwuid(owner)
        main, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        main, groups = group, [group]
    command = [sys.executable, "-m", "site_node.cli", "doctor", str(root), "--part", part, "--json"]
    try:
        done = subprocess.run(
            command, user=owner, group=main, extra_groups=groups, capture_output=True, timeout=SECONDS, check=False,
            cwd="/",
        )  # fmt: skip
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        says = f"The {part} could not be looked at as {name_of(owner)}."
        remedy = f"Run as that user: wardround site doctor {root} --part {part}. Can it read Python and the program?"
        return [problem(part, says, remedy).as_json(part)]
    return found
