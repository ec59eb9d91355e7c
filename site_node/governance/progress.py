"""Progress files of the worker turned into heartbeats: a word of the fixed vocabulary and a rounded fraction.

Heartbeats are egress too and stand in its ledger. At most one a second leaves for a task, and none while an earlier one
still waits in the outbox, so that a hub that is away is not greeted with a heap of old ones.
"""

from collections.abc import Iterable

from protocol.digest import parse_json
from protocol.errors import DigestError
from protocol.messages import Activity, Progress, TaskKind
from site_node.durable import finished_files, remove
from site_node.governance.context import GateContext
from site_node.governance.holding import is_draining
from site_node.governance.records import TaskRecord, task_records
from site_node.settings import SitePaths
from site_node.sqlite import transaction
from site_node.training_hours import may_train

INTERVAL_SECONDS = 1.0
MAX_PROGRESS_BYTES = 1024
STEPS = 100
_WORKING = {Activity.TRAINING, Activity.EVALUATING}


class ProgressRelay:
    """Remembers when it last spoke of a task; what it remembers is not worth keeping over a restart."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int, Progress]] = {}
        self._resting: Activity | None = Activity.IDLE

    def relay(self, context: GateContext) -> int:
        """Send the progress that is new and due; return how many messages."""
        accepted = {record.task_id: record for record in task_records(context.database, "accepted")}
        sent = sum(self._relay_one(context, task_id) for task_id in accepted)
        for path in finished_files(context.paths.progress, ".json"):
            if path.stem not in accepted:
                remove(path)
        self._last = {task_id: last for task_id, last in self._last.items() if task_id in accepted}
        return sent + self._rest(context, accepted.values())

    def _relay_one(self, context: GateContext, task_id: str) -> int:
        found = read_progress(context.paths, task_id)
        if found is None:
            return 0
        activity, fraction = found
        message = Progress(site=context.settings.name, activity=activity, task_id=task_id, fraction=fraction)
        at, number, last = self._last.get(task_id, (float("-inf"), 0, None))
        if message == last or context.clock() - at < INTERVAL_SECONDS or _waits(context, number):
            return 0
        self._last[task_id] = (context.clock(), _send(context, message), message)
        self._resting = None
        return 1

    def _rest(self, context: GateContext, accepted: Iterable[TaskRecord]) -> int:
        resting = _resting(context)
        if resting is self._resting or any(True for _ in accepted):
            return 0
        _send(context, Progress(site=context.settings.name, activity=resting))
        self._resting = resting
        return 1


def _resting(context: GateContext) -> Activity:
    """Say why nothing is under way: drained, or a training waits for its hours, or there is nothing to do."""
    if is_draining(context.database):
        return Activity.PAUSED
    if may_train(context.settings.train_hours, context.clock()):
        return Activity.IDLE
    waiting = (record.task.kind for record in task_records(context.database, "waiting"))
    return Activity.WAITING if TaskKind.TRAIN in waiting else Activity.IDLE


def read_progress(paths: SitePaths, task_id: str) -> tuple[Activity, float] | None:
    """Return what the worker does of a task, and the share that is done; None if it says nothing.

    It stays while the task waits for another attempt, which goes on from the last checkpoint.
    """
    try:
        with (paths.progress / f"{task_id}.json").open("rb") as file:
            document = parse_json(file.read(MAX_PROGRESS_BYTES))
        activity, fraction = Activity(document["activity"]), float(document["fraction"])
    except (OSError, DigestError, KeyError, TypeError, ValueError):
        return None
    if activity not in _WORKING or not 0 <= fraction <= 1:
        return None
    return activity, round(fraction * STEPS) / STEPS


def _waits(context: GateContext, number: int) -> bool:
    return context.database.execute("SELECT 1 FROM unsent WHERE number = ?", (number,)).fetchone() is not None


def _send(context: GateContext, message: Progress) -> int:
    with transaction(context.database):
        return context.send(message)
