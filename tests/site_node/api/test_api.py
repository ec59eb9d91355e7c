"""The site's own API: who may call what, approvals as strict as at the terminal, and nothing kept that opens it."""

import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from protocol.messages import Approval
from site_node.api.app import MAX_BODY_BYTES, make_app
from site_node.api.readers import FOR_WHO_DECIDES
from site_node.api.roles import GATE_PAGES, PERMITTED, READING_PAGES, ROLES, Role, may_call
from site_node.api.tokens import add_token, caller_of, open_tokens, revoke_token
from site_node.api_commands import check_address
from site_node.cli import app
from site_node.errors import SettingsError
from site_node.governance.approval import account_of_last, decisions_on
from site_node.governance.records import open_records
from tests.fakes.api_caller import Caller
from tests.fakes.certificates import Authority
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of
from tests.fakes.orthanc import free_port

PERSON_DECIDES = PERMISSIVE_POLICY.replace("approval: automatic", "approval: person")
PATHS = {
    "me": "/v1/me", "status": "/v1/status", "studies": "/v1/studies", "study": f"/v1/studies/{study_of().digest}",
    "tasks": "/v1/tasks", "budget": "/v1/budget", "egress": "/v1/egress", "doctor": "/v1/doctor",
}  # fmt: skip
DAY = 86400.0


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    assert "approval: person" in PERSON_DECIDES
    site = GatedSite.make(tmp_path, PERSON_DECIDES)
    site.propose(study_of())
    site.sweep()
    return site


def token_of(site: GatedSite, role: Role, name: str | None = None, days: int = 90) -> str:
    with open_tokens(site.paths) as tokens:
        return add_token(tokens, name or f"some-{role}", role, days, site.now)


def client(site: GatedSite, token: str | None = None) -> Caller:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return Caller(make_app(site.settings, lambda: site.now), headers)


def counted(site: GatedSite) -> None:
    site.count_cohort(study_of())
    site.sweep()


def decide(caller: Caller, **body: Any) -> httpx.Response:
    return caller.post(f"/v1/studies/{study_of().digest}/decision", json=body)


@pytest.mark.parametrize("page", PATHS)
@pytest.mark.parametrize("role", ROLES)
def test_each_page_is_answered_to_whom_the_table_names(site: GatedSite, role: Role, page: Any) -> None:
    answer = client(site, token_of(site, role)).get(PATHS[page])
    assert answer.status_code == (200 if may_call(role, page) else 403), answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_the_table_names_every_page_and_only_administrators_decide() -> None:
    assert set(GATE_PAGES) == {*PATHS, "decide"}
    assert set(PERMITTED) == {*GATE_PAGES, *READING_PAGES}
    assert PERMITTED["decide"] == {"administrator"}


@pytest.mark.parametrize("token", [None, "", "wrs_guess", "Bearer"])
@pytest.mark.parametrize("page", PATHS)
def test_without_a_token_nothing_is_answered(site: GatedSite, page: str, token: str | None) -> None:
    answer = client(site, token).get(PATHS[page])
    assert answer.status_code == 401
    assert study_of().name not in answer.text


def test_nothing_but_the_pages_is_there(site: GatedSite) -> None:
    caller = client(site, token_of(site, "administrator"))
    assert [caller.get(path).status_code for path in ("/docs", "/openapi.json", "/", "/v1")] == [404] * 4


@pytest.mark.parametrize("role", ["clinician", "auditor"])
def test_who_is_no_administrator_decides_nothing(site: GatedSite, role: Role) -> None:
    counted(site)
    shown = client(site, token_of(site, "administrator")).get(PATHS["study"]).json()["shown_digest"]
    answer = decide(client(site, token_of(site, role)), decision="approved", shown_digest=shown)
    assert answer.status_code == 403
    assert decisions_on(open_records(site.paths), study_of().digest) == []


@pytest.mark.parametrize("role", ["clinician", "auditor"])
def test_who_decides_nothing_reads_no_small_count_and_no_note_that_follows_from_one(tmp_path: Path, role: Role) -> None:
    site = GatedSite.make(tmp_path, PERSON_DECIDES.replace("_patients: 1\n", "_patients: 10\n"))
    site.propose(study_of())
    site.sweep()
    site.count_cohort(study_of(), training=47, held_out=1)
    site.sweep()
    reader, decider = client(site, token_of(site, role)), client(site, token_of(site, "administrator"))
    [seen], [whole] = reader.get(PATHS["studies"]).json(), decider.get(PATHS["studies"]).json()
    assert (whole["training_patients"], whole["held_out_patients"]) == (47, 1)
    assert (seen["training_patients"], seen["held_out_patients"]) == (40, None)
    assert (bool(whole["explanation"]), seen["explanation"], seen["reason"]) == (True, "", None)
    page = decider.get(PATHS["study"]).json()
    assert "47 training patients" in json.dumps(page["summary"])
    seen = reader.get(PATHS["study"]).json()
    assert set(seen) == set(page) - {"shown_digest"}
    assert set(page["summary"]) - set(seen["summary"]) == {FOR_WHO_DECIDES}
    assert "47" not in json.dumps(seen["summary"])


def test_an_approval_names_what_was_read_and_is_signed_under_the_token_s_person(site: GatedSite) -> None:
    counted(site)
    caller = client(site, token_of(site, "administrator", "anna"))
    assert decide(caller, decision="approved").status_code == 409
    assert decide(caller, decision="approved", shown_digest="sha256:" + "0" * 64).status_code == 409
    assert decisions_on(open_records(site.paths), study_of().digest) == []
    shown = caller.get(PATHS["study"]).json()["shown_digest"]
    answer = decide(caller, decision="approved", shown_digest=shown, days=30)
    assert answer.status_code == 200, answer.text
    database = open_records(site.paths)
    (decision,) = decisions_on(database, study_of().digest)
    assert (decision.decision, decision.person) == ("approved", "anna")
    assert decision.expires_at == site.now + 30 * DAY
    assert account_of_last(database, study_of().digest) == "api:anna"
    site.sweep()
    assert any(isinstance(message, Approval) for message in site.everything_sent())


def test_nobody_approves_before_the_patients_are_counted(site: GatedSite) -> None:
    caller = client(site, token_of(site, "administrator"))
    shown = caller.get(PATHS["study"]).json()["shown_digest"]
    answer = decide(caller, decision="approved", shown_digest=shown)
    assert (answer.status_code, "still being counted" in answer.json()["message"]) == (409, True)
    counted(site)  # what was read before is not what would be signed now
    answer = decide(caller, decision="approved", shown_digest=shown)
    assert (answer.status_code, "not what was read" in answer.json()["message"]) == (409, True)
    assert decisions_on(open_records(site.paths), study_of().digest) == []


def test_a_refusal_needs_no_reading(site: GatedSite) -> None:
    counted(site)
    assert decide(client(site, token_of(site, "administrator")), decision="refused").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "yes"}, {"decision": "refused", "person": "somebody else"}, {}, {"decision": "refused", "days": 0},
        {"decision": "refused", "shown_digest": "not one"},
    ],
)  # fmt: skip
def test_a_body_of_another_form_decides_nothing(site: GatedSite, body: dict[str, Any]) -> None:
    counted(site)
    assert decide(client(site, token_of(site, "administrator")), **body).status_code == 422
    assert decisions_on(open_records(site.paths), study_of().digest) == []


def test_a_body_that_is_not_understood_is_answered_with_the_remedy_and_not_repeated(site: GatedSite) -> None:
    caller = client(site, token_of(site, "administrator"))
    path = f"/v1/studies/{study_of().digest}/decision"
    answer = caller.post(path, content=b'{"decision":"approved"}')  # without a content type, as `curl -d` sends it
    assert (answer.status_code, set(answer.json())) == (422, {"message", "remedy"})
    assert "application/json" in answer.json()["remedy"]
    answer = decide(caller, decision="secret word", another="secret key")
    assert answer.json()["message"] == "Not usable: decision."
    assert "secret" not in answer.text


def test_a_digest_s_beginning_is_not_enough(site: GatedSite) -> None:
    caller = client(site, token_of(site, "administrator"))
    assert caller.get(f"/v1/studies/{study_of().digest[:20]}").status_code == 404


def test_a_body_is_bounded_whether_it_says_so_or_not(site: GatedSite) -> None:
    caller = client(site, token_of(site, "administrator"))
    path = f"/v1/studies/{study_of().digest}/decision"
    assert caller.post(path, content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x"

    assert caller.post(path, content=unannounced()).status_code == 413


def test_tokens_are_kept_as_digests_end_and_can_be_revoked(site: GatedSite) -> None:
    token = token_of(site, "auditor", "otto", days=1)
    files = b"".join(path.read_bytes() for path in site.paths.gate.glob("api_tokens*"))
    assert token.encode() not in files
    assert token.removeprefix("wrs_").encode() not in files
    with open_tokens(site.paths) as tokens:
        assert caller_of(tokens, token, site.now) is not None
        assert caller_of(tokens, token, site.now + DAY) is None
        with pytest.raises(SettingsError, match="already"):
            add_token(tokens, "otto", "clinician", 1, site.now)
        assert revoke_token(tokens, "otto", site.now) == 1
        assert caller_of(tokens, token, site.now) is None
    assert client(site, token).get(PATHS["status"]).status_code == 401


def test_no_pseudonym_of_a_patient_is_in_any_answer(site: GatedSite) -> None:
    counted(site)
    caller = client(site, token_of(site, "administrator"))
    pseudonyms = {f"{who:032x}" for who in (*range(200), *range(1_000_000, 1_000_200))}
    text = "".join(caller.get(path).text for path in PATHS.values())
    assert not [pseudonym for pseudonym in pseudonyms if pseudonym in text]


@pytest.mark.parametrize(
    ("host", "has_certificate", "allowed"),
    [
        ("127.0.0.1", False, True), ("localhost", False, True), ("::1", False, True), ("10.0.0.5", True, True),
        ("10.0.0.5", False, False), ("192.168.1.2", False, False), ("0.0.0.0", True, False),  # noqa: S104
        ("::", True, False), ("8.8.8.8", True, False), ("hospital.example", True, False),
    ],
)  # fmt: skip
def test_it_listens_on_this_machine_or_with_tls_on_one_address_of_the_intranet(
    host: str, has_certificate: bool, allowed: bool
) -> None:
    if allowed:
        check_address(host, has_certificate=has_certificate)
        return
    with pytest.raises(SettingsError):
        check_address(host, has_certificate=has_certificate)


def test_the_commands_serve_over_tls_to_whom_a_token_was_given(site: GatedSite, tmp_path: Path) -> None:
    site.gate.close()
    run = CliRunner()
    made = run.invoke(app, ["tokens", "add", str(site.paths.root), "anna", "--role", "administrator"])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    listed = json.loads(run.invoke(app, ["tokens", "list", str(site.paths.root), "--json"]).stdout)
    assert [(row["name"], row["role"]) for row in listed] == [("anna", "administrator")]
    authority, port = Authority.make(tmp_path / "tls"), free_port()
    certificate, key = authority.sign("localhost")
    command = [sys.executable, "-m", "site_node.cli", "api", str(site.paths.root), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--certificate", str(certificate), "--key", str(key)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any(f"Listening on https://127.0.0.1:{port}" in line for line in lines)
        url, until = f"https://localhost:{port}/v1/status", time.monotonic() + 60
        with httpx.Client(
            verify=ssl.create_default_context(cafile=authority.file),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        ) as http:
            while True:
                try:
                    answer = http.get(url)
                    break
                except httpx.ConnectError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.1)
            assert (answer.status_code, answer.json()["site"]) == (200, "st-anna")
            assert "server" not in answer.headers
            assert run.invoke(app, ["tokens", "revoke", str(site.paths.root), "anna"]).exit_code == 0
            assert http.get(url).status_code == 401
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert run.invoke(app, ["tokens", "revoke", str(site.paths.root), "anna"]).exit_code == 1
