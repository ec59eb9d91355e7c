"""Ask sites and settle their answers: tasks, their mail and their audit entries, in the caller's transaction.

A RoundTask holds no time and nothing random: the same (study, round, site, base) gives the same bytes, whose digest
keys the site's noise stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.aggregation.strategy import DIFFERENCE, DIFFERENCE_BASE, ServerState
from hub.audit.log import append
from hub.errors import NotFoundError
from hub.mail import post, post_document
from hub.registry.lineage import read_lineage
from hub.rounds.participants import Participant
from hub.rounds.transitions import TaskEvent, TaskState, is_waiting, next_task_state
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from hub.storage.tables import StudyRow, TaskRow
from hub.studies.ledger_heads import heads_of
from hub.studies.specification import stored_study
from protocol.digest import digest_of_bytes
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


_NO_TERMS = TrainingTerms()


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
    sites: Sequence[str],
    number: int,
    kind: TaskKind,
    base: ModelReference | None,
    terms: Mapping[str, TrainingTerms] | None = None,
) -> None:
    """Give each of the sites a task: one row, one audit entry, one signed message in its mailbox.

    The database is asked as often for a thousand sites as for one.
    """
    for row in record_tasks(turn, sites, number, kind, base, terms):
        post_document(turn.session, turn.services, row.site, row.document)


def record_tasks(
    turn: Turn,
    sites: Sequence[str],
    number: int,
    kind: TaskKind,
    base: ModelReference | None,
    terms: Mapping[str, TrainingTerms] | None = None,
) -> list[TaskRow]:
    """Note what is asked of sites; whoever asks posts the messages."""
    given = round_stores.tasks_given(turn.session, turn.study.digest, kind)
    heads, difference = heads_of(turn.session, sites), None if base is None else difference_to(turn, base)
    rows, now = [], turn.now
    for site in sites:
        own = (terms or {}).get(site, _NO_TERMS)
        task = RoundTask(
            task_id=f"{turn.study.name}.r{number}.{site}.{kind.value}",
            kind=kind,
            study_digest=turn.study.digest,
            site=site,
            round=number,
            sequence=given[site] + 1,
            base=base,
            noise_multiplier=turn.study.noise_multiplier if kind is TaskKind.TRAIN else None,
            update_norm=own.update_norm,
            control=own.control,
            difference=difference,
            rate_factor=own.rate_factor,
            deadline_seconds=turn.spec.participants.deadline_seconds,
            ledger_head=heads.get(site),
        )
        rows.append(_row_of(task, now))
    turn.session.add_all(rows)
    turn.session.flush()
    for row in rows:
        turn.audit("hub", "task.opened", row.task_id, {"study": row.study, "site": row.site, "digest": row.digest})
    return rows


def _row_of(task: RoundTask, now: float) -> TaskRow:
    document = task.canonical_bytes()
    return TaskRow(
        task_id=task.task_id,
        study=task.study_digest,
        site=task.site,
        round=task.round,
        kind=task.kind.value,
        sequence=task.sequence,
        digest=digest_of_bytes(document),
        document=document,
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
