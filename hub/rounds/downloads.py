"""Who may fetch which weights, and on which task's account the bytes go."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.auth.identity import Caller
from hub.errors import NotFoundError
from hub.rounds.decrypting import decryption_blobs
from hub.rounds.terms import stored_task
from hub.rounds.transitions import WAITING_TASK_STATES
from hub.services import Services
from hub.storage import round_stores, stores
from hub.storage.database import Session
from protocol.digest import is_digest

ASK = "Ask for a digest that a task or version names."


@dataclass(frozen=True)
class Download:
    """A blob that the caller may read; `task_id` is the open task that it is fetched for, if any."""

    path: Path
    task_id: str | None


def open_download(services: Services, caller: Caller, name: str) -> Download:
    """Return where the blob lies.

    Raises: NotFoundError if there is none, or none that this caller may know of.
    """
    digest = f"sha256:{name}"
    if not is_digest(digest):
        raise NotFoundError("That is not the name of a blob.", ASK)
    with services.reading() as session:
        if caller.kind != "site":
            permitted, task_id = bool(round_stores.versions_with_weights(session, digest)), None
        else:
            task_id = _task_based_on(session, caller.name, digest)
            permitted = task_id is not None or _takes_part_in_a_study_with(session, caller.name, digest)
    if not permitted:
        raise NotFoundError("There is no blob of this digest for this caller.", ASK)
    return Download(services.blobs.path(digest), task_id)


def count_sent(services: Services, sent_bytes: Mapping[str, int]) -> None:
    """Add to the traffic of tasks."""
    with services.transaction() as session:
        for task_id, count in sorted(sent_bytes.items()):
            round_stores.count_bytes(session, task_id, down=count)


def _task_based_on(session: Session, site: str, digest: str) -> str | None:
    for row in round_stores.tasks_of_site(session, site, [state.value for state in WAITING_TASK_STATES]):
        task = stored_task(row.document)
        named = {reference.weights_digest for reference in (task.base, task.control) if reference is not None}
        if task.difference is not None:
            named.add(task.difference.blob)
        if digest in named or digest in decryption_blobs(session, row):
            return row.task_id
    return None


def _takes_part_in_a_study_with(session: Session, site: str, digest: str) -> bool:
    studies = {version.study for version in round_stores.versions_with_weights(session, digest)}
    found = [stores.find_participant(session, study, site) for study in studies]
    return any(participant is not None and participant.state == "approved" for participant in found)
