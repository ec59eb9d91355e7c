"""Queries of rounds, tasks, uploads, updates and evaluations."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import func, select, update

from hub.errors import NotFoundError
from hub.storage.database import Session
from hub.storage.tables import EvaluationRow, RoundRow, TaskRow, UpdateRow, UploadRow, VersionRow


def rounds(session: Session, study: str) -> Sequence[RoundRow]:
    """Return a study's rounds by number."""
    return session.scalars(select(RoundRow).where(RoundRow.study == study).order_by(RoundRow.number)).all()


def round_of(session: Session, study: str, number: int) -> RoundRow:
    """Return one round.

    Raises: NotFoundError if there is none.
    """
    row = session.get(RoundRow, (study, number))
    if row is None:
        raise NotFoundError("The study has no such round.", "Ask for the study's rounds.")
    return row


def last_round(session: Session, study: str) -> RoundRow | None:
    """Return a study's newest round, or None if it has none yet."""
    return session.scalars(
        select(RoundRow).where(RoundRow.study == study).order_by(RoundRow.number.desc()).limit(1)
    ).first()


def rounds_in(session: Session, states: Sequence[str]) -> Sequence[RoundRow]:
    """Return the rounds of all studies that are in one of the states."""
    return session.scalars(
        select(RoundRow).where(RoundRow.state.in_(states)).order_by(RoundRow.study, RoundRow.number)
    ).all()


def task(session: Session, task_id: str) -> TaskRow | None:
    """Return a task, or None."""
    return session.get(TaskRow, task_id)


def tasks_by_id(session: Session, task_ids: Collection[str]) -> dict[str, TaskRow]:
    """Return several tasks, by id."""
    return {row.task_id: row for row in session.scalars(select(TaskRow).where(TaskRow.task_id.in_(task_ids)))}


def tasks_of_round(session: Session, study: str, number: int, kind: str) -> Sequence[TaskRow]:
    """Return what was asked in a round, by site."""
    return session.scalars(
        select(TaskRow)
        .where(TaskRow.study == study, TaskRow.round == number, TaskRow.kind == kind)
        .order_by(TaskRow.site)
    ).all()


class TaskStanding(NamedTuple):
    """How a site's task of a round stands; without the task itself, which is large."""

    site: str
    state: str


def standings_of_round(session: Session, study: str, number: int, kind: str) -> list[TaskStanding]:
    """Return how the tasks of a kind of a round stand, by site."""
    found = select(TaskRow.site, TaskRow.state).where(TaskRow.study == study, TaskRow.round == number)
    rows = session.execute(found.where(TaskRow.kind == kind).order_by(TaskRow.site))
    return [TaskStanding(row.site, row.state) for row in rows]


def count_task_states(session: Session, study: str, number: int, kind: str) -> Counter[str]:
    """Return how many of a round's tasks of a kind are in each state."""
    found = (
        select(TaskRow.state, func.count().label("tasks"))
        .where(TaskRow.study == study, TaskRow.round == number, TaskRow.kind == kind)
        .group_by(TaskRow.state)
    )
    return Counter({row.state: row.tasks for row in session.execute(found)})


def tasks_of_study(session: Session, study: str) -> Sequence[TaskRow]:
    """Return all that was asked in a study."""
    return session.scalars(
        select(TaskRow).where(TaskRow.study == study).order_by(TaskRow.round, TaskRow.site, TaskRow.kind)
    ).all()


def tasks_of_site(session: Session, site: str, states: Sequence[str]) -> Sequence[TaskRow]:
    """Return a site's tasks in one of the states, newest first."""
    return session.scalars(
        select(TaskRow)
        .where(TaskRow.site == site, TaskRow.state.in_(states))
        .order_by(TaskRow.opened_at.desc(), TaskRow.round.desc(), TaskRow.task_id)
    ).all()


def tasks_of_sites(session: Session, sites: Collection[str], state: str) -> Sequence[TaskRow]:
    """Return the tasks of several sites that are in a state."""
    return session.scalars(
        select(TaskRow).where(TaskRow.site.in_(sites), TaskRow.state == state).order_by(TaskRow.task_id)
    ).all()


def tasks_given(session: Session, study: str, kind: str) -> Counter[str]:
    """Count the tasks of a kind that each site was ever given in a study."""
    found = select(TaskRow.site, func.count().label("tasks")).where(TaskRow.study == study, TaskRow.kind == kind)
    return Counter({row.site: row.tasks for row in session.execute(found.group_by(TaskRow.site))})


def count_bytes(session: Session, task_id: str, *, up: int = 0, down: int = 0) -> None:
    """Add to a task's traffic, without losing a concurrent addition."""
    session.execute(
        update(TaskRow)
        .where(TaskRow.task_id == task_id)
        .values(bytes_up=TaskRow.bytes_up + up, bytes_down=TaskRow.bytes_down + down)
    )


def upload(session: Session, upload_id: str) -> UploadRow | None:
    """Return a transfer, or None."""
    return session.get(UploadRow, upload_id)


def upload_of_task(session: Session, task_id: str) -> UploadRow | None:
    """Return the transfer that answers a task, or None."""
    return session.scalars(select(UploadRow).where(UploadRow.task_id == task_id)).first()


def upload_sizes(session: Session, study: str) -> dict[str, int]:
    """Return the size of each transfer of a study in bytes, by the task that it answers."""
    found = select(UploadRow.task_id, UploadRow.payload_bytes).join(TaskRow, TaskRow.task_id == UploadRow.task_id)
    return {row.task_id: row.payload_bytes for row in session.execute(found.where(TaskRow.study == study))}


def uploads_in(session: Session, state: str) -> Sequence[UploadRow]:
    """Return the transfers in a state."""
    return session.scalars(select(UploadRow).where(UploadRow.state == state).order_by(UploadRow.upload_id)).all()


def uploads_without(session: Session, state: str, task_states: Sequence[str]) -> Sequence[str]:
    """Return the ids of the transfers in a state whose task is in none of the states."""
    found = select(UploadRow.upload_id).join(TaskRow, TaskRow.task_id == UploadRow.task_id)
    found = found.where(UploadRow.state == state, TaskRow.state.not_in(task_states))
    return session.scalars(found.order_by(UploadRow.upload_id)).all()


def updates_of_round(session: Session, study: str, number: int) -> Sequence[UpdateRow]:
    """Return a round's accepted updates in the fixed order of sums: by the site's name, byte by byte."""
    found = session.scalars(select(UpdateRow).where(UpdateRow.study == study, UpdateRow.round == number)).all()
    return sorted(found, key=lambda row: row.site.encode())


def updates_taken(session: Session, study: str, number: int) -> Sequence[UpdateRow]:
    """Return the updates that a round's close takes, in the fixed order of sums: by the site's name, then by round."""
    found = session.scalars(select(UpdateRow).where(UpdateRow.study == study, UpdateRow.taken_in == number)).all()
    return sorted(found, key=lambda row: (row.site.encode(), row.round))


def updates_waiting(session: Session, study: str) -> Sequence[UpdateRow]:
    """Return the accepted training updates that no round's close has taken yet, by round and site."""
    return session.scalars(
        select(UpdateRow)
        .where(UpdateRow.study == study, UpdateRow.taken_in.is_(None), UpdateRow.round > 0)
        .order_by(UpdateRow.round, UpdateRow.site)
    ).all()


def open_rounds(session: Session, study: str, states: Sequence[str]) -> Sequence[RoundRow]:
    """Return a study's rounds that are in one of the states, by number."""
    return session.scalars(
        select(RoundRow).where(RoundRow.study == study, RoundRow.state.in_(states)).order_by(RoundRow.number)
    ).all()


def tasks_in(session: Session, study: str, states: Sequence[str], kind: str | None = None) -> Sequence[TaskRow]:
    """Return a study's tasks that are in one of the states, by round and site; of one kind, or of all."""
    found = select(TaskRow).where(TaskRow.study == study, TaskRow.state.in_(states))
    found = found if kind is None else found.where(TaskRow.kind == kind)
    return session.scalars(found.order_by(TaskRow.round, TaskRow.site, TaskRow.kind)).all()


def privacy_spent(session: Session, study: str, number: int) -> tuple[float | None, float | None]:
    """Return the largest epsilon of a site's own account up to a round, with its delta; None if there is none."""
    found = select(UpdateRow.epsilon, UpdateRow.delta).where(UpdateRow.study == study, UpdateRow.round <= number)
    found = found.where(UpdateRow.epsilon.is_not(None)).order_by(UpdateRow.epsilon.desc()).limit(1)
    row = session.execute(found).first()
    return (None, None) if row is None else (row.epsilon, row.delta)


def notices_that_state(session: Session, study: str, epsilon: float, delta: float) -> Sequence[bytes]:
    """Return the notice of one accepted update of a study with this epsilon and delta; none if there is no such."""
    found = select(UpdateRow.notice).where(UpdateRow.study == study, UpdateRow.epsilon == epsilon)
    return session.scalars(found.where(UpdateRow.delta == delta).limit(1)).all()


def updates_of_study(session: Session, study: str) -> Sequence[UpdateRow]:
    """Return all accepted updates of a study."""
    return session.scalars(
        select(UpdateRow).where(UpdateRow.study == study).order_by(UpdateRow.round, UpdateRow.site)
    ).all()


def evaluation(session: Session, task_id: str) -> EvaluationRow | None:
    """Return the report that answers a task, or None."""
    return session.get(EvaluationRow, task_id)


def evaluations_of_study(session: Session, study: str) -> Sequence[EvaluationRow]:
    """Return all reports of a study, by version and site."""
    return session.scalars(
        select(EvaluationRow).where(EvaluationRow.study == study).order_by(EvaluationRow.version, EvaluationRow.site)
    ).all()


def evaluations_of_version(session: Session, study: str, version: int) -> Sequence[EvaluationRow]:
    """Return the reports on one version, by site."""
    return session.scalars(
        select(EvaluationRow)
        .where(EvaluationRow.study == study, EvaluationRow.version == version)
        .order_by(EvaluationRow.site)
    ).all()


def versions_with_weights(session: Session, digest: str) -> Sequence[VersionRow]:
    """Return the versions whose released weights are this blob."""
    return session.scalars(select(VersionRow).where(VersionRow.weights_digest == digest)).all()


def last_version(session: Session, study: str) -> VersionRow | None:
    """Return a study's newest version, or None."""
    return session.scalars(
        select(VersionRow).where(VersionRow.study == study).order_by(VersionRow.number.desc()).limit(1)
    ).first()
