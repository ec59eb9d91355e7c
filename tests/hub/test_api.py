"""The people's and the sites' routes over HTTP: who may call what, how large it may be, what an error looks like."""

import asyncio
import errno
import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy.exc import OperationalError

from compose.in_memory import BASE_URL, InMemoryTransport
from hub.api.app import assemble
from hub.api.dependencies import May
from hub.auth.roles import PERMISSIONS, Permission, permits
from hub.services import Services
from protocol.digest import digest_of_bytes
from protocol.signing import open_envelope
from protocol.study import MAX_STUDY_BYTES, StudySpec
from tests.fakes.hospital import Hospital
from tests.hub.conftest import PASSWORD, Clock, specification

Headers = dict[str, str]
NO_STUDY = digest_of_bytes(b"no such study")

# Every route and the permission that it must ask for; a new route has to be written here.
EXPECTED = {
    "GET /v1/info": Permission.ANYONE,
    "GET /v1/health": Permission.ANYONE,
    "GET /v1/openapi.json": Permission.ANYONE,
    "POST /v1/enrolments": Permission.ANYONE,
    "POST /v1/token/site": Permission.ANYONE,
    "POST /v1/token/person": Permission.ANYONE,
    "GET /v1/mailbox": Permission.TAKE_PART,
    "POST /v1/messages": Permission.TAKE_PART,
    "POST /v1/uploads": Permission.TAKE_PART,
    "GET /v1/uploads/{upload_id}": Permission.TAKE_PART,
    "PATCH /v1/uploads/{upload_id}": Permission.TAKE_PART,
    "GET /v1/blobs/{name}": Permission.FETCH_BLOBS,
    "GET /v1/me": Permission.READ,
    "GET /v1/studies": Permission.READ,
    "GET /v1/studies/schema": Permission.READ,
    "GET /v1/studies/{digest}": Permission.READ,
    "GET /v1/studies/{digest}/rounds": Permission.READ,
    "GET /v1/studies/{digest}/versions": Permission.READ,
    "GET /v1/studies/{digest}/versions/{number}": Permission.READ,
    "GET /v1/sites": Permission.READ,
    "GET /v1/audit": Permission.READ,
    "GET /v1/audit/verify": Permission.READ,
    "POST /v1/studies": Permission.PROPOSE,
    "POST /v1/studies/check": Permission.PROPOSE,
    "POST /v1/studies/{digest}/start": Permission.PROPOSE,
    "POST /v1/studies/{digest}/stop": Permission.PROPOSE,
    "POST /v1/studies/{digest}/versions/{number}/decisions": Permission.DECIDE,
    "POST /v1/sites/invitations": Permission.ADMINISTER,
    "GET /v1/people": Permission.ADMINISTER,
    "POST /v1/people": Permission.ADMINISTER,
}


@pytest.fixture
def app(services: Services) -> FastAPI:
    return assemble(services)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    with httpx.Client(transport=InMemoryTransport(app), base_url=BASE_URL) as opened:
        yield opened


def sign_in(client: httpx.Client, name: str) -> Headers:
    answer = client.post("/v1/token/person", json={"name": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.fixture
def headers(client: httpx.Client, people: dict[str, str], hospitals: list[Hospital]) -> dict[str, Headers]:
    """Headers of one caller of each role."""
    found = {role: sign_in(client, role) for role in people}
    return {**found, "site": hospitals[0].sign_in(client)}


def routes(router: Any) -> dict[str, APIRoute]:
    """Return every route by method and path; anything that is no API route of ours is an error."""
    found: dict[str, APIRoute] = {}
    for route in router.routes:
        inner = getattr(route, "original_router", None)  # newer FastAPI keeps included routers as they are
        if inner is not None:
            found |= routes(inner)
            continue
        assert isinstance(route, APIRoute), f"{route} states no permission"
        found |= {f"{method} {route.path}": route for method in route.methods or ()}
    return found


def permissions_of(dependant: Dependant) -> list[Permission]:
    own = [dependant.call.permission] if isinstance(dependant.call, May) else []
    return [*own, *(found for inner in dependant.dependencies for found in permissions_of(inner))]


def test_every_route_states_exactly_one_permission_and_it_is_the_expected_one(app: FastAPI) -> None:
    stated = {name: permissions_of(route.dependant) for name, route in routes(app).items()}
    assert stated == {name: [permission] for name, permission in EXPECTED.items()}


def test_no_route_reads_a_body_without_a_bound(app: FastAPI) -> None:
    # A body parameter is read whole by FastAPI before any of our code runs.
    assert [name for name, route in routes(app).items() if route.dependant.body_params] == []


def test_every_role_is_let_in_or_kept_out_as_the_table_says(
    app: FastAPI, client: httpx.Client, headers: dict[str, Headers]
) -> None:
    for name, permission in EXPECTED.items():
        method, path = name.split()
        address = path.format(digest=NO_STUDY, number=1, upload_id="none", name="0" * 64)
        if permission is Permission.ANYONE:
            continue
        nobody = client.request(method, address)
        assert (nobody.status_code, nobody.json()["error"]) == (401, "not-authenticated"), name
        for role in PERMISSIONS:
            answer = client.request(method, address, headers=headers[role])
            assert not re.search(r"\bA [aeiou]", answer.text)
            kept_out = answer.status_code == 403 and answer.json()["error"] == "not-permitted"
            assert kept_out is not permits(role, permission), f"{role} at {name}: {answer.status_code}"
            assert answer.status_code < 500, f"{role} at {name}: {answer.text}"


def test_info_and_health_are_for_anyone(client: httpx.Client, services: Services, clock: Clock) -> None:
    assert client.get("/v1/info").json() == {
        "service": "wardround-hub",
        "protocol_versions": [1],
        "hub_key": services.key.public.text,
        "time": clock.now,
    }
    assert client.get("/v1/health").json() == {"status": "ok"}


def test_a_hospital_is_invited_enrols_and_is_seen_online(
    client: httpx.Client, headers: dict[str, Headers], clock: Clock, services: Services
) -> None:
    invitation = client.post("/v1/sites/invitations", json={"name": "dora"}, headers=headers["operator"])
    assert invitation.status_code == 201
    dora = Hospital("dora", clock)
    enrolled = client.post("/v1/enrolments", content=dora.enrolment(invitation.json()["code"]))
    assert enrolled.json() == {"site": "dora", "hub_key": services.key.public.text}
    dora.sign_in(client)
    seen = {site["name"]: site for site in client.get("/v1/sites", headers=headers["clinician"]).json()}
    assert seen["dora"]["online"]
    assert seen["dora"]["activity"] == "idle"
    clock.now += 61
    seen = {site["name"]: site for site in client.get("/v1/sites", headers=headers["clinician"]).json()}
    assert not seen["dora"]["online"]


def test_a_wrong_code_gets_a_sentence_and_a_remedy(
    client: httpx.Client, headers: dict[str, Headers], clock: Clock
) -> None:
    answer = client.post("/v1/enrolments", content=Hospital("dora", clock).enrolment("WRONG"))
    assert answer.status_code == 403
    assert answer.json()["error"] == "bad-invitation"
    assert "wardround hub invite" in answer.json()["remedy"]


def test_a_wrong_clock_gets_the_seconds(client: httpx.Client, hospitals: list[Hospital], clock: Clock) -> None:
    anna = hospitals[0]
    late = Hospital("anna", lambda: clock.now - 3600, anna.identity, anna.transport)
    answer = client.post("/v1/token/site", json={"assertion": late.assertion()})
    assert (answer.status_code, answer.json()["error"]) == (401, "clock-skew")
    assert "3600 seconds behind" in answer.json()["message"]


def test_a_site_is_noted_as_seen_when_it_calls(
    client: httpx.Client, headers: dict[str, Headers], services: Services, clock: Clock
) -> None:
    clock.now += 100
    anna = {site["name"]: site for site in client.get("/v1/sites", headers=headers["operator"]).json()}["anna"]
    assert not anna["online"]
    client.get("/v1/mailbox?after=0&wait=0", headers=headers["site"])
    for _ in range(100):  # it is written down beside the answer, not before it
        anna = {site["name"]: site for site in client.get("/v1/sites", headers=headers["operator"]).json()}["anna"]
        if anna["online"]:
            break
    assert anna["online"]
    assert anna["last_seen_at"] == clock.now


def test_who_am_i(client: httpx.Client, headers: dict[str, Headers]) -> None:
    assert client.get("/v1/me", headers=headers["clinician"]).json() == {"name": "clinician", "role": "clinician"}


def test_the_operator_makes_accounts_and_no_hash_is_shown(client: httpx.Client, headers: dict[str, Headers]) -> None:
    body = {"name": "new", "role": "clinician", "password": PASSWORD}
    assert client.post("/v1/people", json=body, headers=headers["operator"]).status_code == 201
    listed = client.get("/v1/people", headers=headers["operator"])
    assert [person["name"] for person in listed.json()] == ["clinician", "new", "operator", "researcher"]
    assert "argon2" not in listed.text
    assert sign_in(client, "new")


def test_a_study_is_checked_proposed_listed_and_stopped(
    client: httpx.Client, headers: dict[str, Headers], spec: StudySpec
) -> None:
    researcher = headers["researcher"]
    checked = client.post("/v1/studies/check", json=specification(), headers=researcher).json()
    assert checked["digest"] == spec.digest
    assert client.get("/v1/studies", headers=researcher).json() == []
    proposed = client.post("/v1/studies?sites=anna,bela", json=specification(), headers=researcher)
    assert proposed.status_code == 201
    assert [site["site"] for site in proposed.json()["sites"]] == ["anna", "bela"]
    assert proposed.json()["study"] == checked["study"]
    assert [study["digest"] for study in client.get("/v1/studies", headers=researcher).json()] == [spec.digest]
    shown = client.get(f"/v1/studies/{spec.digest}", headers=headers["clinician"]).json()
    assert shown["privacy"] == {"unit": "patient", "epsilon_target": None, "epsilon": None, "delta": None}
    early = client.post(f"/v1/studies/{spec.digest}/start", headers=researcher)
    assert (early.status_code, early.json()["error"]) == (409, "wrong-state")
    assert client.post(f"/v1/studies/{spec.digest}/stop", headers=researcher).json()["state"] == "stopped"
    assert client.get(f"/v1/studies/{spec.digest}/versions", headers=researcher).json() == []


def test_an_illegal_study_gets_one_sentence_for_each_fault(client: httpx.Client, headers: dict[str, Headers]) -> None:
    wrong = specification(rounds=0, privacy={"epsilon": 8}, colour="red")
    answer = client.post("/v1/studies", json=wrong, headers=headers["researcher"])
    assert (answer.status_code, answer.json()["error"]) == (422, "bad-study")
    assert len(answer.json()["problems"]) == 2
    assert "study-schema" in answer.json()["remedy"]


def test_the_schema_feeds_the_launch_form(client: httpx.Client, headers: dict[str, Headers]) -> None:
    schema = client.get("/v1/studies/schema", headers=headers["clinician"]).json()
    assert "privacy" in schema["properties"]


def test_a_missing_study_or_version_is_said_to_be_missing(
    client: httpx.Client, headers: dict[str, Headers], spec: StudySpec
) -> None:
    answer = client.get(f"/v1/studies/{NO_STUDY}", headers=headers["researcher"])
    assert (answer.status_code, answer.json()["error"]) == (404, "not-found")
    client.post("/v1/studies", json=specification(), headers=headers["researcher"])
    answer = client.get(f"/v1/studies/{spec.digest}/versions/3", headers=headers["researcher"])
    assert "no version 3" in answer.json()["message"]
    judged = client.post(
        f"/v1/studies/{spec.digest}/versions/3/decisions", json={"decision": "accepted"}, headers=headers["clinician"]
    )
    assert judged.status_code == 404


def test_the_audit_log_is_read_in_pages_and_verified(client: httpx.Client, headers: dict[str, Headers]) -> None:
    reader = headers["clinician"]
    first = client.get("/v1/audit?after=0&limit=4", headers=reader).json()
    assert [entry["number"] for entry in first["entries"]] == [1, 2, 3, 4]
    rest = client.get("/v1/audit?after=4", headers=reader).json()
    assert rest["entries"][0]["number"] == 5
    assert rest["head"]["size"] == rest["entries"][-1]["number"]
    verdict = client.get("/v1/audit/verify", headers=reader).json()
    assert verdict == {"ok": True, "entries": rest["head"]["size"], "head": rest["head"]["root"], "problem": None}


def test_a_tampered_log_is_told(client: httpx.Client, headers: dict[str, Headers], services: Services) -> None:
    from hub.storage.database import text

    with services.database.transaction() as session:
        session.execute(text("update audit set entry = replace(entry, 'person', 'Person') where number = 2"))
    verdict = client.get("/v1/audit/verify", headers=headers["operator"]).json()
    assert not verdict["ok"]
    assert verdict["problem"].startswith("Entry 2 was changed")


@pytest.mark.parametrize("announce", [True, False])
def test_a_body_beyond_the_bound_is_refused(client: httpx.Client, headers: dict[str, Headers], announce: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_STUDY_BYTES // 1024 + 1):
            yield b"x" * 1024

    content: Any = b"".join(chunks()) if announce else chunks()
    answer = client.post("/v1/studies/check", content=content, headers=headers["researcher"])
    assert (answer.status_code, answer.json()["error"]) == (413, "too-large")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"name": 1}', b'{"name": "a", "x": "b"}', b'{"name": "a", "name": "b"}']
)
def test_a_body_that_is_not_understood_gets_its_fields(
    client: httpx.Client, headers: dict[str, Headers], body: bytes
) -> None:
    answer = client.post("/v1/sites/invitations", content=body, headers=headers["operator"])
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-request")
    assert "name" in answer.json()["remedy"]


def test_an_address_or_parameter_that_does_not_exist_gets_our_form(
    client: httpx.Client, headers: dict[str, Headers]
) -> None:
    assert set(client.get("/v1/nothing").json()) == {"error", "message", "remedy"}
    assert client.delete("/v1/info").json()["error"] == "http-405"
    answer = client.get("/v1/audit?limit=0", headers=headers["operator"])
    assert (answer.status_code, answer.json()["message"]) == (422, "Missing or unusable: query.limit.")


def database_error(code: int) -> OperationalError:
    cause = sqlite3.OperationalError("as SQLite says it")
    cause.sqlite_errorcode = code
    return OperationalError("INSERT", {}, cause)


def test_an_unforeseen_error_tells_nothing_of_the_inside(services: Services) -> None:
    app = assemble(services)

    def fail() -> None:
        raise ValueError("a secret")

    app.add_api_route("/v1/fails", fail)

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            return await client.get("/v1/fails")

    answer = asyncio.run(call())
    assert (answer.status_code, answer.json()["error"]) == (500, "internal")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/path"), 507, "disk-full"),
        (database_error(sqlite3.SQLITE_FULL), 507, "disk-full"),
        (OSError(errno.EIO, "Input/output error", "/a/path"), 500, "internal"),
        (database_error(sqlite3.SQLITE_BUSY), 500, "internal"),
    ],
)
def test_a_hub_without_room_says_so_and_that_the_request_may_come_again(
    services: Services, problem: Exception, status: int, code: str
) -> None:
    app = assemble(services)

    def fail() -> None:
        raise problem

    app.add_api_route("/v1/fails", fail)

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            return await client.get("/v1/fails")

    answer = asyncio.run(call())
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert "sent again" in answer.json()["remedy"]
    assert "/a/path" not in answer.text


def test_the_clock_that_closes_rounds_runs_only_while_the_application_does(services: Services) -> None:
    app = assemble(services, watch=True)

    async def live() -> tuple[int, int]:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)
            during = len(asyncio.all_tasks())
        return during, len(asyncio.all_tasks())

    assert asyncio.run(live()) == (2, 1)


def test_three_signed_approvals_over_http_start_the_study(
    client: httpx.Client, headers: dict[str, Headers], hospitals: list[Hospital], services: Services
) -> None:
    proposed = client.post("/v1/studies", json=specification(), headers=headers["researcher"]).json()
    for hospital in hospitals:
        site = hospital.sign_in(client)
        (item,) = client.get("/v1/mailbox?after=0&wait=0", headers=site).json()["items"]
        assert b"study-proposal" in open_envelope(item["envelope"].encode(), services.key.public)
        approval = hospital.signed(hospital.approval(proposed["digest"]))
        receipt = client.post("/v1/messages", content=approval, headers=site)
        assert json.loads(open_envelope(receipt.content, services.key.public))["accepted"], receipt.text
    shown = client.get(f"/v1/studies/{proposed['digest']}", headers=headers["clinician"]).json()
    assert (shown["state"], shown["round"]) == ("running", 0)
    actions = [entry["action"] for entry in client.get("/v1/audit", headers=headers["operator"]).json()["entries"]]
    assert {"site.enrolled", "study.proposed", "study.approved", "study.running"} <= set(actions)


def test_a_site_cannot_answer_for_another(
    client: httpx.Client, headers: dict[str, Headers], hospitals: list[Hospital]
) -> None:
    proposed = client.post("/v1/studies", json=specification(), headers=headers["researcher"]).json()
    foreign = hospitals[0].signed(hospitals[1].approval(proposed["digest"]))
    assert client.post("/v1/messages", content=foreign, headers=headers["site"]).status_code in (403, 422)
    shown = client.get(f"/v1/studies/{proposed['digest']}", headers=headers["clinician"]).json()
    assert {site["state"] for site in shown["sites"]} == {"invited"}
