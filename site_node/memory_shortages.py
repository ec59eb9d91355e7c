"""How often a task's attempts ended for want of memory: so often the next halves what it computes at once.

A process that the system kills for memory cannot say so itself: the worker notes it for the next, in one small file
beside the task's checkpoints, memory.json (read by `training/task_device.py`). It goes when the task has ended.
"""

import json
from pathlib import Path

import structlog

from site_node.durable import write_durably

RECORD = "memory.json"
OWNER_ONLY = 0o600
_log = structlog.get_logger()


def shortages_of(folder: Path) -> int:
    """Return how many attempts of the task with this folder ended for want of memory."""
    try:
        return int(json.loads((folder / RECORD).read_bytes())["shortages"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def note_shortage(folder: Path) -> None:
    """Note one more. A disk that takes no note stops nothing: the next attempt is as large as this one was."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = json.dumps({"shortages": shortages_of(folder) + 1})
        write_durably(folder / RECORD, document.encode(), OWNER_ONLY)
    except OSError as error:
        _log.warning("memory_not_recorded", why=error.strerror or type(error).__name__)
