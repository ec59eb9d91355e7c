"""Ask sites and settle their answers: tasks, their mail and their audit entries, in the caller's transaction.

A RoundTask holds no time and nothing random: the same (study, round, site, base) gives the same bytes, whose digest
keys the site's noise stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.aggregation.strategy import DIFFERENCE, DIFFERENCE_BASE, ServerState
from hub.audit.log import append
from hub.errors import NotFoundError
from hub.mail import post
from hub.registry.lineage import read_lineage
from hub.rounds.participants import Participant
from hub.rounds.terms import stored_task
from hub.rounds.transitions import TaskEvent, TaskState, is_waiting, next_task_state
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import StudyRow, TaskRow
from hub.studies.ledger_heads import head_of
from hub.studies.specification import stored_study
from protocol.messages import ModelReference, RoundTask, TaskCancelled, TaskKind, VersionDifference
from protocol.study import StudySpec

_LONGEST_REASON = 500


@dataclass(frozen=True)
class Turn:
    """One transaction on one study: what every step of the coordinator works with."""

    session: Session
    services: Services
    study: StudyRow
    spec: StudySpec

    @property
    def now(self) -> float:
        """Return the hub's time in seconds."""
        return self.services.clock()

    def audit(self, actor: str, action: str, subject: str, details: dict[str, object]) -> None:
        """Append an audit entry to this transaction."""
        append(self.session, self.now, actor, action, subject, details)

    def participants(self) -> list[Participant]:
        """Return the study's participants."""
        rows = stores.participants(self.session, self.study.digest)
        return [Participant(r.site, r.state, r.training_patients, r.evaluates, r.expires_at) for r in rows]


@dataclass(frozen=True)
class TrainingTerms:
    """What a training task says beside its version: the length to cut to, SCAFFOLD's c, the site's own rate."""

    update_norm: float | None = None
    control: ModelReference | None = None
    rate_factor: float | None = None


def turn_on(session: Session, services: Services, study_digest: str) -> Turn:
    """Return a turn on a study.

    Raises: NotFoundError if there is no such study.
    """
    study = stores.study(session, study_digest)
    return Turn(session, services, study, stored_study(study.specification))


def own_task(session: Session, site: str, task_id: str) -> TaskRow:
    """Return a site's own task.

    Raises: NotFoundError if it has none of this name.
    """
    task = round_stores.task(session, task_id)
    if task is None or task.site != site:
        raise NotFoundError("The site was given no such task.", "Answer the tasks of the site's own mailbox.")
    return task


def ask(
    turn: Turn,
    site: str,
    number: int,
    kind: TaskKind,
    base: ModelReference | None,
    terms: TrainingTerms | None = None,
) -> TaskRow:
    """Give a site a task: one row, one signed message in its mailbox."""
    row = record_task(turn, site, number, kind, base, terms)
    post(turn.session, turn.services, site, stored_task(row.document))
    return row


def record_task(
    turn: Turn,
    site: str,
    number: int,
    kind: TaskKind,
    base: ModelReference | None,
    terms: TrainingTerms | None = None,
) -> TaskRow:
    """Note what is asked of a site; whoever asks posts the message."""
    given, terms = round_stores.tasks_given(turn.session, turn.study.digest, site, kind), terms or TrainingTerms()
    task = RoundTask(
        task_id=f"{turn.study.name}.r{number}.{site}.{kind.value}",
        kind=kind,
        study_digest=turn.study.digest,
        site=site,
        round=number,
        sequence=given + 1,
        base=base,
        noise_multiplier=turn.study.noise_multiplier if kind is TaskKind.TRAIN else None,
        update_norm=terms.update_norm,
        control=terms.control,
        difference=None if base is None else difference_to(turn, base),
        rate_factor=terms.rate_factor,
        deadline_seconds=turn.spec.participants.deadline_seconds,
        ledger_head=head_of(turn.session, site),
    )
    row = _row_of(task, turn.now)
    turn.session.add(row)
    turn.session.flush()
    turn.audit("hub", "task.opened", row.task_id, {"study": row.study, "site": site, "digest": row.digest})
    return row


def _row_of(task: RoundTask, now: float) -> TaskRow:
    return TaskRow(
        task_id=task.task_id,
        study=task.study_digest,
        site=task.site,
        round=task.round,
        kind=task.kind.value,
        sequence=task.sequence,
        digest=task.digest,
        document=task.canonical_bytes(),
        state=TaskState.OPEN.value,
        opened_at=now,
    )


def difference_to(turn: Turn, base: ModelReference) -> VersionDifference | None:
    """Return the file that leads from the version before it to a version, if the study's versions travel so."""
    if not turn.spec.transport.download:
        return None
    version = stores.version(turn.session, turn.study.digest, base.number)
    state = ServerState.from_document(read_lineage(version.lineage)["server_state"])
    if DIFFERENCE not in state.blobs or state.sent != base.weights_digest:
        return None
    blob = state.blobs[DIFFERENCE]
    size = turn.services.blobs.size(blob)
    return VersionDifference(from_digest=state.blobs[DIFFERENCE_BASE], blob=blob, bytes=size)


def settle(turn: Turn, task: TaskRow, event: TaskEvent, reason: str = "", *, actor: str | None = None) -> None:
    """Move a task by an answer, and audit it.

    Raises: StateError if the task is no longer waiting.
    """
    task.state = next_task_state(task.state, event).value
    task.reason = reason[:_LONGEST_REASON] or None
    task.answered_at = turn.now
    details: dict[str, object] = {"study": task.study, "round": task.round, "site": task.site, "reason": task.reason}
    turn.audit(actor or f"site:{task.site}", f"task.{task.state}", task.task_id, details)


def cancel_waiting(turn: Turn, tasks: Sequence[TaskRow], reason: str) -> None:
    """Cancel those of the tasks that are still waited for, and tell their sites."""
    for task in tasks:
        if is_waiting(task.state):
            settle(turn, task, TaskEvent.CANCELLED, reason, actor="hub")
            message = TaskCancelled(task_id=task.task_id, study_digest=task.study)
            post(turn.session, turn.services, task.site, message)
