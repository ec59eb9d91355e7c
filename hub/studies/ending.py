"""Move a study to another state: apply the rule, save, audit, and tell the sites when it has ended."""

from typing import Literal, cast

from hub.audit.log import append
from hub.mail import post_to_all
from hub.services import Services
from hub.storage import stores
from hub.storage.database import Session
from hub.storage.tables import StudyRow
from hub.studies.lifecycle import StudyEvent, is_open, next_study_state
from protocol.messages import StudyClosed

_LONGEST_REASON = 500


def move_study(
    session: Session, services: Services, study: StudyRow, event: StudyEvent, actor: str, reason: str
) -> None:
    """Apply an event to a study, in the caller's transaction.

    Raises: StateError if the event is not legal now.
    """
    study.state = next_study_state(study.state, event)
    study.reason = reason[:_LONGEST_REASON]
    details = {"state": study.state, "reason": study.reason, "final_version": study.final_version}
    append(session, services.clock(), actor, f"study.{study.state}", study.digest, details)
    if not is_open(study.state):
        study.ended_at = services.clock()
        _tell_sites(session, services, study)


def end_study(
    session: Session,
    services: Services,
    study: StudyRow,
    event: StudyEvent,
    reason: str = "",
    final_version: int | None = None,
    actor: str = "hub",
) -> None:
    """End a study (COMPLETE, FAIL or STOP), in the caller's transaction.

    Raises: StateError if it has ended already.
    """
    study.final_version = final_version
    move_study(session, services, study, event, actor, reason)


def _tell_sites(session: Session, services: Services, study: StudyRow) -> None:
    state = cast(Literal["completed", "failed", "stopped"], str(study.state))
    sites = [participant.site for participant in stores.participants(session, study.digest)]
    post_to_all(session, services, sites, StudyClosed(study_digest=study.digest, state=state))
