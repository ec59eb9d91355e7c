"""Hand mail over to a site, and note that its tasks were fetched."""

from typing import Any

from hub.rounds.transitions import TaskEvent, TaskState, next_task_state
from hub.services import Services
from hub.storage import round_stores, stores

MOST_ITEMS = 100


def fetch_mail(services: Services, site: str, after: int) -> list[dict[str, Any]]:
    """Return a site's mail after a number, oldest first, and mark open tasks as delivered."""
    with services.reading() as session:
        rows = stores.mail_after(session, site, after, MOST_ITEMS)
        items = [{"number": row.number, "envelope": row.envelope.decode()} for row in rows]
        undelivered = bool(items) and bool(round_stores.tasks_of_site(session, site, [TaskState.OPEN.value]))
    if undelivered:
        _mark_delivered(services, site)
    return items


def _mark_delivered(services: Services, site: str) -> None:
    # Not audited: that a site looked into its mailbox is no change of the study; its answer is.
    with services.transaction() as session:
        for task in round_stores.tasks_of_site(session, site, [TaskState.OPEN.value]):
            task.state = next_task_state(task.state, TaskEvent.FETCHED).value
