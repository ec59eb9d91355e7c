"""A hub for the UI's tests: the contract's people-facing routes over made-up, unchanging figures; decisions are kept.

with running_fake_hub() as hub:
    ...  # hub.url; people ada (researcher), claire (clinician), otto (operator); everyone's password is PASSWORD
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from protocol.errors import SpecificationError
from protocol.study import parse_study, study_json_schema
from tests.fakes import fake_hub_data as data

PASSWORD = "correct horse"
ROLES = {"ada": "researcher", "claire": "clinician", "otto": "operator"}


class RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": code, "message": message, "remedy": remedy}


@dataclass
class FakeHub:
    """The state of one fake: what a test may set and look at."""

    now: float = field(default_factory=time.time)
    url: str = ""
    empty: bool = False
    unit: str = "patient"
    failed_round: str = ""
    """Why the newest round of each study failed, for all hospitals alike."""
    terms: dict[str, Any] = field(default_factory=dict)
    audit_problem: str | None = None
    revoked: set[str] = field(default_factory=set)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    proposed: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    invited: list[str] = field(default_factory=list)
    people: list[dict[str, Any]] = field(default_factory=list)

    def studies(self) -> list[dict[str, Any]]:
        known = [] if self.empty else [*data.studies(self.now), *self.proposed]
        privacy = [{**study["privacy"], "unit": self.unit} for study in known]
        terms = [{**study["study"], **self.terms} for study in known]
        return [{**s, "privacy": p, "study": t} for s, p, t in zip(known, privacy, terms, strict=True)]

    def study(self, digest: str) -> dict[str, Any]:
        for study in self.studies():
            if study["digest"] == digest:
                return study
        raise RefusalError(404, "unknown-study", "There is no study of this digest.", "Look it up under /v1/studies.")

    def versions(self, digest: str) -> list[dict[str, Any]]:
        found = data.versions(self.study(digest), self.now)
        for version in found:
            own = [d for d in self.decisions if (d["study"], d["number"]) == (digest, version["number"])]
            kept = [{k: d[k] for k in ("person", "decision", "comment", "decided_at")} for d in own]
            version["decisions"] = [*version["decisions"], *kept]
        return found


def create_fake_hub(hub: FakeHub) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(RefusalError)
    async def refuse(_: Request, error: RefusalError) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @app.middleware("http")
    async def note_call(request: Request, call_next: Any) -> Any:
        hub.calls.append((request.method, request.url.path))
        return await call_next(request)

    _add_people(app, hub)
    _add_studies(app, hub)
    _add_models(app, hub)
    return app


@contextlib.contextmanager
def running_fake_hub(**state: Any) -> Iterator[FakeHub]:
    """Serve a fake hub on a free port of the loopback interface."""
    hub = FakeHub(**state)
    server = uvicorn.Server(
        uvicorn.Config(create_fake_hub(hub), host="127.0.0.1", port=0, log_level="error", ws="none", lifespan="off")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(10)


def _person(request: Request, hub: FakeHub, *roles: str) -> str:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    name = token.removeprefix("token-of-")
    if name not in ROLES or token in hub.revoked:
        raise RefusalError(401, "bad-token", "The token is missing, expired or wrong.", "Sign in again.")
    if roles and ROLES[name] not in roles:
        raise RefusalError(403, "forbidden", f"This needs the role {' or '.join(roles)}.", "Ask the hub's operator.")
    return name


def _add_people(app: FastAPI, hub: FakeHub) -> None:
    @app.get("/v1/info")
    async def info() -> dict[str, Any]:
        return {"service": "wardround-hub", "protocol_versions": [1], "hub_key": "AAAA", "time": hub.now}

    @app.post("/v1/token/person")
    async def token(request: Request) -> dict[str, Any]:
        body = await request.json()
        if body["name"] not in ROLES or body["password"] != PASSWORD:
            raise RefusalError(401, "bad-credentials", "Name and password do not match.", "Check both.")
        name = body["name"]
        return {"access_token": f"token-of-{name}", "expires_in": 28800, "name": name, "role": ROLES[name]}

    @app.get("/v1/me")
    async def me(request: Request) -> dict[str, Any]:
        name = _person(request, hub)
        return {"name": name, "role": ROLES[name]}

    @app.get("/v1/people")
    async def people(request: Request) -> list[dict[str, Any]]:
        _person(request, hub, "operator")
        own = [{"name": n, "role": r, "created_at": hub.now - 9e6, "disabled": False} for n, r in ROLES.items()]
        return [*own, *hub.people]

    @app.post("/v1/people")
    async def add_person(request: Request) -> dict[str, Any]:
        _person(request, hub, "operator")
        body = await request.json()
        if body["name"] in ROLES:
            raise RefusalError(409, "name-taken", "Someone of that name may sign in already.", "Choose another name.")
        entry = {"name": body["name"], "role": body["role"], "created_at": hub.now, "disabled": False}
        hub.people.append(entry)
        return entry

    @app.get("/v1/sites")
    async def sites(request: Request) -> list[dict[str, Any]]:
        _person(request, hub)
        return [] if hub.empty else data.sites(hub.now)

    @app.post("/v1/sites/invitations")
    async def invite(request: Request) -> dict[str, Any]:
        _person(request, hub, "operator")
        name = (await request.json())["name"]
        hub.invited.append(name)
        return {"name": name, "code": "k7f3-9dqx-m2ha-w4tz", "expires_at": hub.now + 259200}


def _parsed(text: bytes) -> Any:
    try:
        return parse_study(yaml.safe_load(text))
    except yaml.YAMLError:
        raise RefusalError(422, "bad-study", "The text is not YAML.", "Check indentation and colons.") from None
    except SpecificationError as error:
        remedy = "Correct the fields named above."
        raise RefusalError(422, "bad-study", str(error), remedy) from None


def _add_studies(app: FastAPI, hub: FakeHub) -> None:
    @app.get("/v1/studies")
    async def studies(request: Request) -> list[dict[str, Any]]:
        _person(request, hub)
        return hub.studies()

    @app.get("/v1/studies/schema")
    async def schema(request: Request) -> dict[str, Any]:
        _person(request, hub)
        return study_json_schema()

    @app.post("/v1/studies/check")
    async def check(request: Request) -> dict[str, Any]:
        _person(request, hub, "researcher")
        return data.check_of(_parsed(await request.body()))

    @app.post("/v1/studies")
    async def propose(request: Request, sites: str) -> dict[str, Any]:
        person = _person(request, hub, "researcher")
        study = data.proposal_of(_parsed(await request.body()), sites.split(","), person, hub.now)
        hub.proposed.append(study)
        return study

    @app.get("/v1/studies/{digest}")
    async def study(request: Request, digest: str) -> dict[str, Any]:
        _person(request, hub)
        return hub.study(digest)

    @app.post("/v1/studies/{digest}/{verb}")
    async def change(request: Request, digest: str, verb: str) -> dict[str, Any]:
        _person(request, hub, "researcher")
        return hub.study(digest)


def _add_models(app: FastAPI, hub: FakeHub) -> None:
    @app.get("/v1/studies/{digest}/rounds")
    async def rounds(request: Request, digest: str) -> list[dict[str, Any]]:
        _person(request, hub)
        found = data.rounds(hub.study(digest), hub.now)
        if hub.failed_round and found:
            sites = [{**site, "train_state": "cancelled", "reason": hub.failed_round} for site in found[-1]["sites"]]
            found[-1] |= {"state": "failed", "reason": hub.failed_round, "ended_at": hub.now, "sites": sites}
        return found

    @app.get("/v1/studies/{digest}/versions")
    async def versions(request: Request, digest: str) -> list[dict[str, Any]]:
        _person(request, hub)
        return hub.versions(digest)

    @app.get("/v1/studies/{digest}/versions/{number}")
    async def version(request: Request, digest: str, number: int) -> dict[str, Any]:
        _person(request, hub)
        return hub.versions(digest)[number] | {"validation": data.validation(hub.study(digest), number)}

    @app.post("/v1/studies/{digest}/versions/{number}/decisions")
    async def decide(request: Request, digest: str, number: int) -> dict[str, Any]:
        person = _person(request, hub, "clinician")
        body = await request.json()
        entry = {"study": digest, "number": number, "person": person, "decided_at": hub.now, **body}
        hub.decisions.append(entry)
        return entry

    @app.get("/v1/audit")
    async def audit(request: Request, after: int = 0, limit: int = 100) -> dict[str, Any]:
        _person(request, hub)
        entries = [] if hub.empty else data.audit(hub.now)
        return {"entries": [e for e in entries if e["number"] > after][:limit], "head": data.audit_head(len(entries))}

    @app.get("/v1/audit/verify")
    async def verify(request: Request) -> dict[str, Any]:
        _person(request, hub)
        entries = len(data.audit(hub.now))
        problem = hub.audit_problem
        return {"ok": problem is None, "entries": entries, "head": data.digest_of("head"), "problem": problem}
