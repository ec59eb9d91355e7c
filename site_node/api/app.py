"""The routes: each names its page, which names who may call it (`roles.py`). Handlers are thin; documents are shared.

What is answered is what the command line prints with `--json`. Nothing of a patient is in it. It runs as the gate's
user, because approvals are the gate's to keep, and reads no image, no index and no label.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from protocol.digest import Digest
from site_node.api.readers import entry_for_readers, page_for_readers
from site_node.api.roles import Page, may_call
from site_node.api.tokens import Caller, caller_of, open_tokens
from site_node.budget_report import budget_overview
from site_node.deciding import decide_on, shown_digest
from site_node.doctor.examination import examine
from site_node.doctor.finding import PARTS, Finding
from site_node.errors import GateError, SettingsError, SiteError
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
CLOSED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}


class DecisionBody(BaseModel):
    """A person's decision on one study. An approval names what was read: the `shown_digest` of the study's page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decision: Literal["approved", "refused", "withdrawn"]
    shown_digest: Digest | None = None
    days: int | None = Field(default=None, ge=1, le=3660)


class RefusedCallError(Exception):
    """A call that is answered with a status and a sentence."""

    def __init__(self, status: int, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.remedy = status, message, remedy


def make_app(settings: SiteSettings, clock: Callable[[], float] = time.time) -> FastAPI:
    """Return the API of a site. It offers no documentation pages: these would load scripts from elsewhere."""
    app = FastAPI(title="Wardround site", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings, app.state.clock = settings, clock
    app.middleware("http")(_bounded)
    app.add_exception_handler(RefusedCallError, _refused)
    app.add_exception_handler(SiteError, _refused)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    for path, page, handler in (
        ("/v1/status", "status", _status),
        ("/v1/studies", "studies", _studies),
        ("/v1/studies/{digest}", "study", _study),
        ("/v1/tasks", "tasks", _tasks),
        ("/v1/budget", "budget", _budget),
        ("/v1/egress", "egress", _egress),
        ("/v1/doctor", "doctor", _doctor),
    ):
        app.get(path, dependencies=[Depends(_allowed(page))])(handler)  # type: ignore[arg-type]
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


def _allowed(page: Page) -> Callable[[Request], Caller]:
    def allowed(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        with open_tokens(_settings(request).paths) as tokens:
            caller = caller_of(tokens, token.strip(), request.app.state.clock()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise RefusedCallError(401, "No token that counts.", "Ask for one: `wardround site tokens add DIR NAME`.")
        if not may_call(caller.role, page):
            raise RefusedCallError(403, f"This page is not for the role {caller.role}.")
        request.state.caller = caller
        return caller

    return allowed


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
    caller: Annotated[Caller, Depends(_allowed("decide"))],
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


async def _bounded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse a body that is longer than any that is meant, or that does not say how long it is."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        response: Response = JSONResponse({"message": "The body is too long.", "remedy": ""}, 413)
    else:
        response = await call_next(request)
    response.headers.update(CLOSED)
    return response


async def _misunderstood(request: Request, error: Exception) -> JSONResponse:
    """Say which keys are wrong and how it is done, without repeating what was sent."""
    where = [entry["loc"] for entry in error.errors()] if isinstance(error, RequestValidationError) else []
    named = ("decision", "shown_digest", "days", "after")
    keys = list(dict.fromkeys(str(place[1]) for place in where if len(place) > 1 and place[1] in named))
    message = f"Not usable: {', '.join(keys)}." if keys else "The call's body is not of the form that is asked for."
    remedy = HOW_TO_DECIDE if request.method == "POST" else "A number is asked for."
    return JSONResponse({"message": message, "remedy": remedy}, 422)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RefusedCallError):
        return JSONResponse({"message": error.message, "remedy": error.remedy}, error.status)
    known = error if isinstance(error, SiteError) else GateError("It failed.", "See the log.")
    status = 409 if isinstance(error, SettingsError) else 500
    return JSONResponse({"message": known.message, "remedy": known.remedy}, status)
