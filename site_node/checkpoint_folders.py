"""Where the checkpoints of a task lie, and which of these folders are of no use any more.

Of each task one folder, SITE/worker/checkpoints/STUDY/ROUND.TASK, the study by its digest's digits.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from protocol.digest import hex_of
from site_node.candidate import candidate_folder
from site_node.durable import finished_files, remove
from site_node.errors import OrderError
from site_node.orders import WorkOrder, has_ended, order_path, read_order
from site_node.settings import SitePaths

SUFFIX = ".sealed"
KEPT_SECONDS = 7 * 86400.0
"""So long the checkpoints of a task are kept whose order was taken away: a paused site goes on with it."""


@dataclass(frozen=True)
class _TaskFolder:
    path: Path
    study: str
    round: int
    task_id: str


def checkpoint_folder(paths: SitePaths, order: WorkOrder) -> Path:
    """Return the folder of a task's checkpoints."""
    return paths.checkpoints / hex_of(order.study_digest) / f"{order.round:08d}.{order.task_id}"


def erase_ended_tasks(paths: SitePaths, now: float) -> int:
    """Delete the checkpoints of tasks that have ended; return of how many there were any.

    Ended: its result was handed over, its study has ended, or its order is gone and another task of the study follows
    it (it was cancelled or superseded), or nothing has come for a week.
    Guarantee: a task whose order lies there without a result keeps what it has; so does one that a pause holds back.
    """
    folders = list(_folders(paths))
    newest = _newest_rounds(paths) if folders else {}
    ended = [folder for folder in folders if _has_ended(paths, folder, newest.get(folder.study, -1), now)]
    for folder in ended:
        remove(folder.path)
        with suppress(OSError):
            folder.path.parent.rmdir()  # unless another task's lies there
    return len(ended)


def forget_progress(paths: SitePaths) -> None:
    """Delete how far every task's training had come: it begins anew, on the device that it was begun on."""
    for checkpoint in sorted(paths.checkpoints.glob(f"*/*.*/[!.]*{SUFFIX}")):
        remove(checkpoint)


def _has_ended(paths: SitePaths, folder: _TaskFolder, newest_round: int, now: float) -> bool:
    if has_ended(paths, folder.study) or candidate_folder(paths, folder.task_id).exists():
        return True
    if order_path(paths, folder.task_id).exists():
        return False
    try:
        age = now - folder.path.stat().st_mtime
    except FileNotFoundError:
        return False
    return newest_round >= folder.round or age > KEPT_SECONDS


def _folders(paths: SitePaths) -> Iterator[_TaskFolder]:
    for path in sorted(paths.checkpoints.glob("*/*.*")):
        number, _, task_id = path.name.partition(".")
        if number.isdecimal():
            yield _TaskFolder(path, path.parent.name, int(number), task_id)


def _newest_rounds(paths: SitePaths) -> dict[str, int]:
    """Return the newest round of each study that a training was ordered for."""
    newest: dict[str, int] = {}
    for path in finished_files(paths.orders, ".json"):
        with suppress(OrderError):
            order = read_order(paths, path.stem)
            if order is not None and order.kind == "train":
                study = hex_of(order.study_digest)
                newest[study] = max(newest.get(study, 0), order.round)
    return newest
