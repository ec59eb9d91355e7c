"""Queries of sites, people, studies, participants, versions, decisions and mail, for the coordinators.

Small functions over a session; what is legal is decided elsewhere. Rounds, tasks, uploads, updates and evaluations are
in `round_stores.py`, the audit log in `audit_stores.py`.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import bindparam, func, select, update

from hub.errors import NotFoundError
from hub.storage.database import Connection, Session
from hub.storage.tables import (
    DecisionRow,
    GivenWeightsRow,
    MailRow,
    ParticipantRow,
    PersonRow,
    SiteRow,
    StudyRow,
    UpdateRow,
    VersionRow,
)

# Asked for each request of a site: built once.
_ENROLLED = select(SiteRow.name, SiteRow.state).where(
    SiteRow.name.in_(bindparam("names", expanding=True)), SiteRow.identity_key.is_not(None)
)
_HEARD = (
    update(SiteRow)
    .where(SiteRow.name == bindparam("site"), func.coalesce(SiteRow.last_seen_at, 0.0) < bindparam("time"))
    .values(last_seen_at=bindparam("time"))
)
_MAIL_AFTER = (
    select(MailRow.number, MailRow.site, MailRow.envelope)
    .where(MailRow.number > bindparam("number"))
    .order_by(MailRow.number)
    .limit(bindparam("limit"))
)


def find_site(session: Session, name: str) -> SiteRow | None:
    """Return a site or None."""
    return session.get(SiteRow, name)


def site(session: Session, name: str) -> SiteRow:
    """Return a site.

    Raises: NotFoundError.
    """
    row = find_site(session, name)
    if row is None:
        raise NotFoundError(f"There is no site {name!r}.", "See the sites' names with `wardround hub sites`.")
    return row


def sites(session: Session) -> Sequence[SiteRow]:
    """Return all sites by name."""
    return session.scalars(select(SiteRow).order_by(SiteRow.name)).all()


def enrolled_states(connection: Connection, names: Collection[str]) -> dict[str, str]:
    """Return the state of each of these sites that has handed in its keys."""
    return {row.name: row.state for row in connection.execute(_ENROLLED, {"names": list(names)})}


def heard_from(session: Session, times: Mapping[str, float]) -> None:
    """Note when sites called; a time before the one that is known changes nothing."""
    if times:  # in the order of names, as all who change several sites do
        session.connection().execute(_HEARD, [{"site": name, "time": times[name]} for name in sorted(times)])


def set_activity(session: Session, name: str, activity: str, task_id: str | None, fraction: float) -> None:
    """Note what a site says it is doing."""
    row = site(session, name)
    row.activity, row.activity_task, row.activity_fraction = activity, task_id, fraction


def find_person(session: Session, name: str) -> PersonRow | None:
    """Return a person or None."""
    return session.get(PersonRow, name)


def people(session: Session) -> Sequence[PersonRow]:
    """Return all people by name."""
    return session.scalars(select(PersonRow).order_by(PersonRow.name)).all()


def find_study(session: Session, digest: str) -> StudyRow | None:
    """Return a study or None."""
    return session.get(StudyRow, digest)


def study(session: Session, digest: str) -> StudyRow:
    """Return a study.

    Raises: NotFoundError.
    """
    row = find_study(session, digest)
    if row is None:
        raise NotFoundError("There is no study of this digest.", "See the studies at /v1/studies.")
    return row


def study_named(session: Session, name: str) -> StudyRow | None:
    """Return the study of this name or None; names are unique on a hub."""
    return session.scalars(select(StudyRow).where(StudyRow.name == name)).first()


def studies(session: Session) -> Sequence[StudyRow]:
    """Return all studies, newest first."""
    return session.scalars(select(StudyRow).order_by(StudyRow.proposed_at.desc(), StudyRow.name)).all()


def participants(session: Session, digest: str) -> Sequence[ParticipantRow]:
    """Return a study's participants by name."""
    return session.scalars(
        select(ParticipantRow).where(ParticipantRow.study == digest).order_by(ParticipantRow.site)
    ).all()


def answers(session: Session, digest: str) -> list[tuple[str, int, int]]:
    """Return, for each state in which invited sites are, the sum of their public figures and how many they are."""
    found = (
        select(ParticipantRow.state, func.sum(ParticipantRow.training_patients).label("patients"), func.count("*"))
        .where(ParticipantRow.study == digest)
        .group_by(ParticipantRow.state)
    )
    return [(state, int(patients), sites) for state, patients, sites in session.execute(found)]


def find_participant(session: Session, digest: str, name: str) -> ParticipantRow | None:
    """Return a site's answer to a study, or None if it was not invited."""
    return session.get(ParticipantRow, (digest, name))


def epsilon_spent(session: Session, digest: str) -> float | None:
    """Return the largest epsilon that a site has accounted for in its accepted updates, or None."""
    return session.scalar(select(func.max(UpdateRow.epsilon)).where(UpdateRow.study == digest))


def version_numbers(session: Session, digest: str) -> Sequence[int]:
    """Return the numbers of a study's versions, oldest first, without their lineages."""
    found = select(VersionRow.number).where(VersionRow.study == digest)
    return session.scalars(found.order_by(VersionRow.number)).all()


def versions(session: Session, digest: str) -> Sequence[VersionRow]:
    """Return a study's versions, oldest first."""
    return session.scalars(select(VersionRow).where(VersionRow.study == digest).order_by(VersionRow.number)).all()


def find_version(session: Session, digest: str, number: int) -> VersionRow | None:
    """Return a version or None."""
    return session.get(VersionRow, (digest, number))


def version(session: Session, digest: str, number: int) -> VersionRow:
    """Return a version.

    Raises: NotFoundError.
    """
    row = find_version(session, digest, number)
    if row is None:
        raise NotFoundError(f"The study has no version {number}.", "See its versions at /v1/studies/{digest}/versions.")
    return row


def newest_version(session: Session, digest: str) -> VersionRow:
    """Return a study's newest version; numbers may be missing before it, of rounds that failed.

    Raises: NotFoundError.
    """
    row = session.scalars(
        select(VersionRow).where(VersionRow.study == digest).order_by(VersionRow.number.desc()).limit(1)
    ).first()
    if row is None:
        raise NotFoundError("The study has no version yet.", "See its rounds at /v1/studies/{digest}/rounds.")
    return row


def decisions(session: Session, digest: str, number: int) -> Sequence[DecisionRow]:
    """Return the recorded judgements of a version, oldest first."""
    return session.scalars(
        select(DecisionRow).where(DecisionRow.study == digest, DecisionRow.version == number).order_by(DecisionRow.id)
    ).all()


def add_mail(session: Session, name: str, envelope: bytes, time: float) -> None:
    """Put a signed message into a site's mailbox; written by the next flush, with all that was added till then."""
    session.add(MailRow(site=name, envelope=envelope, posted_at=time))


def mail_after(session: Session, name: str, number: int, limit: int) -> Sequence[MailRow]:
    """Return a site's messages after a number, oldest first."""
    return session.scalars(
        select(MailRow).where(MailRow.site == name, MailRow.number > number).order_by(MailRow.number).limit(limit)
    ).all()


def mail_of_all(connection: Connection, number: int, limit: int) -> list[tuple[int, str, bytes]]:
    """Return number, site and envelope of the messages to all sites after a number, oldest first."""
    rows = connection.execute(_MAIL_AFTER, {"number": number, "limit": limit})
    return [(row.number, row.site, row.envelope) for row in rows]


def newest_mail(connection: Connection) -> int:
    """Return the number of the newest message to any site; 0 if there is none."""
    return connection.scalar(select(func.max(MailRow.number))) or 0


def given_weights(session: Session, digest: str) -> GivenWeightsRow | None:
    """Return the weights from outside of a digest, or None."""
    return session.get(GivenWeightsRow, digest)
