"""The routes: each names its page, which names who may call it (`roles.py`). Handlers are thin; documents are shared.

What is answered is what the command line prints with `--json`. Nothing of a patient is in it. It runs as the gate's
user, because approvals are the gate's to keep, and reads no image, no index and no label.
"""

import functools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import Digest
from site_node.api.calls import RefusedCallError, allowed, closed_app
from site_node.api.readers import entry_for_readers, page_for_readers
from site_node.api.roles import may_call
from site_node.api.tokens import Caller, caller_of, open_tokens
from site_node.budget_report import budget_overview
from site_node.deciding import decide_on, shown_digest
from site_node.doctor.examination import examine
from site_node.doctor.finding import PARTS, Finding
from site_node.governance import egress as egress_ledger
from site_node.governance.policy import load_policy
from site_node.governance.records import StudyRecord, open_records, study_record, task_records
from site_node.overview import status_of, studies_of
from site_node.settings import SiteSettings
from site_node.study_summary import document_of

MAX_BODY_BYTES = 4096
MAX_ENTRIES = 1000
HOW_TO_DECIDE = (
    'Send JSON, with Content-Type: application/json: {"decision": "approved", "refused" or "withdrawn"}; an approval '
    "also with shown_digest, as the study's page says it, and, if it should end, days (1 to 3660)."
)
ELSEWHERE = "Run `wardround site doctor DIR` as root: it looks at each part as its own user."
KEYS = ("decision", "shown_digest", "days", "after")


class DecisionBody(BaseModel):
    """A person's decision on one study. An approval names what was read: the `shown_digest` of the study's page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decision: Literal["approved", "refused", "withdrawn"]
    shown_digest: Digest | None = None
    days: int | None = Field(default=None, ge=1, le=3660)


def make_app(settings: SiteSettings, clock: Callable[[], float] = time.time) -> FastAPI:
    """Return the API of a site, as far as the gate's user serves it."""
    app = closed_app(
        "Wardround site",
        functools.partial(_caller, settings),
        most_bytes=MAX_BODY_BYTES,
        keys=KEYS,
        how_to_post=HOW_TO_DECIDE,
    )
    app.state.settings, app.state.clock = settings, clock
    for path, page, handler in (
        ("/v1/me", "me", _me),
        ("/v1/status", "status", _status),
        ("/v1/studies", "studies", _studies),
        ("/v1/studies/{digest}", "study", _study),
        ("/v1/tasks", "tasks", _tasks),
        ("/v1/budget", "budget", _budget),
        ("/v1/egress", "egress", _egress),
        ("/v1/doctor", "doctor", _doctor),
    ):
        app.get(path, dependencies=[Depends(allowed(page))])(handler)  # type: ignore[arg-type]
    app.post("/v1/studies/{digest}/decision")(_decide)
    return app


def _settings(request: Request) -> SiteSettings:
    settings: SiteSettings = request.app.state.settings
    return settings


def _records(settings: Annotated[SiteSettings, Depends(_settings)]) -> Iterator[sqlite3.Connection]:
    with closing(open_records(settings.paths)) as database:
        yield database


Settings = Annotated[SiteSettings, Depends(_settings)]
Records = Annotated[sqlite3.Connection, Depends(_records)]


def _caller(settings: SiteSettings, token: str, now: float) -> Caller | None:
    with open_tokens(settings.paths) as tokens:
        return caller_of(tokens, token, now)


def _me(request: Request) -> dict[str, Any]:
    caller: Caller = request.state.caller
    return {"name": caller.name, "role": caller.role, "ends_at": caller.ends_at}


def _status(settings: Settings, database: Records) -> dict[str, Any]:
    return status_of(settings, database)


def _studies(settings: Settings, database: Records, request: Request) -> list[dict[str, Any]]:
    policy = load_policy(settings.policy)
    studies = studies_of(database, policy, request.app.state.clock())
    if may_call(request.state.caller.role, "decide"):
        return studies
    return [entry_for_readers(entry, policy.minimum_patients) for entry in studies]


def _study(digest: str, settings: Settings, database: Records, request: Request) -> dict[str, Any]:
    record = _named(database, digest)
    found = document_of(database, record, load_policy(settings.policy))
    page = {**found, "shown_digest": shown_digest(found["summary"], record.detail)}
    return page if may_call(request.state.caller.role, "decide") else page_for_readers(page)


def _tasks(database: Records) -> list[dict[str, Any]]:
    records = task_records(database, "waiting", "accepted", "refused", "answered", "cancelled")[-MAX_ENTRIES:]
    return [{"task_id": r.task_id, "state": r.state, "reason": r.reason, "received_at": r.received_at} for r in records]


def _budget(settings: Settings, database: Records) -> dict[str, Any]:
    return budget_overview(database, load_policy(settings.policy))


def _egress(database: Records, after: int = 0) -> list[dict[str, Any]]:
    return egress_ledger.egress_entries(database)[max(0, after) :][:MAX_ENTRIES]


def _doctor(settings: Settings) -> list[dict[str, Any]]:
    """Look at what the gate's user may see; the other parts are named as unseen."""
    found = list[dict[str, Any]]()
    for part in PARTS:
        if part in ("settings", "gate"):
            found += examine(settings, part)
        else:
            found.append(Finding(part, "unseen", "Not looked at from here.", ELSEWHERE).as_json(part))
    return found


def _decide(
    digest: str,
    body: DecisionBody,
    caller: Annotated[Caller, Depends(allowed("decide"))],
    settings: Settings,
    database: Records,
    request: Request,
) -> dict[str, Any]:
    study, word = _named(database, digest).digest, body.decision
    account, now = f"api:{caller.name}", request.app.state.clock()
    decide_on(settings, database, study, word, caller.name, account, now, days=body.days, shown=body.shown_digest)
    return {"study": study, "decision": word, "person": caller.name}


def _named(database: sqlite3.Connection, digest: str) -> StudyRecord:
    """Return the study of this whole digest: a beginning is for people who type."""
    record = study_record(database, digest)
    if record is None:
        raise RefusedCallError(404, "No study of this digest was proposed here.", "Name the whole digest.")
    return record
