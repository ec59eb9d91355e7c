"""What the pages ask of a hub, asked of the real hub and of the fake that the pages are tested with."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml

from hub.api.app import assemble
from hub.auth.coordinator import add_person, enrol_site, invite_site
from hub.services import open_services
from hub.settings import Settings
from hub.storage.migrate import upgrade
from tests.fakes.fake_hub import PASSWORD, ROLES, running_fake_hub
from tests.fakes.hospital import Hospital
from ui.errors import HubRefusedError, SignedOutError
from ui.hub_client import HubClient, open_http

ANY_DIGEST = "sha256:" + "0" * 64
SPECIFICATION = {
    "name": "tiny",
    "label": {"classes": ["no", "yes"]},
    "network": {"name": "densenet"},
    "rounds": 2,
    "privacy": {"epsilon": None},
}

SignIn = Callable[[str], HubClient]


@contextmanager
def real_hub(folder: Path) -> Iterator[str]:
    services = open_services(Settings(dir=folder), lambda _name, _arguments: None, time.time)
    upgrade(services.database)
    for name, role in ROLES.items():
        add_person(services, name, role, PASSWORD, "operator:console")
    for name in ("northgate", "riverside"):
        hospital = Hospital(name, time.time)
        enrol_site(services, hospital.enrolment(invite_site(services, name, "operator:console").code))
    config = uvicorn.Config(assemble(services), host="127.0.0.1", port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        services.waker.close()
        services.database.close()


@pytest.fixture(params=["fake", "real"])
def sign_in(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SignIn]:
    """Return a function that signs someone in at the hub under test."""

    @contextmanager
    def fake_url() -> Iterator[str]:
        with running_fake_hub() as hub:
            yield hub.url

    hub = real_hub(tmp_path / "hub") if request.param == "real" else fake_url()
    with hub as url, open_http(url) as http:

        def signed_in(name: str) -> HubClient:
            answer = http.post("/v1/token/person", json={"name": name, "password": PASSWORD})
            answer.raise_for_status()
            body: dict[str, Any] = answer.json()
            assert (body["name"], body["role"]) == (name, ROLES[name])
            assert body["expires_in"] > 0
            return HubClient(http, body["access_token"])

        yield signed_in


def text(**changes: Any) -> str:
    return yaml.safe_dump({**SPECIFICATION, **changes})


@pytest.mark.parametrize("name", list(ROLES))
def test_everyone_learns_who_they_are(sign_in: SignIn, name: str) -> None:
    person = sign_in(name).me()
    assert (person.name, person.role) == (name, ROLES[name])


def test_a_wrong_password_is_unauthorised(sign_in: SignIn) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        sign_in("nobody")
    assert caught.value.response.status_code == 401


def test_a_token_that_is_none_signs_out(sign_in: SignIn) -> None:
    client = sign_in("ada")
    client._headers["Authorization"] = "Bearer none"
    with pytest.raises(SignedOutError):
        client.me()


def test_everyone_reads_sites_studies_and_the_log(sign_in: SignIn) -> None:
    client = sign_in("claire")
    assert {"northgate", "riverside"} <= {site.name for site in client.sites()}
    assert isinstance(client.studies(), list)
    log = client.audit()
    assert log.head is not None
    assert log.entries[0].number == 1
    assert client.verify_audit().ok


def test_the_schema_is_the_one_of_the_form(sign_in: SignIn) -> None:
    assert "privacy" in sign_in("ada").study_schema()["properties"]


def test_a_check_says_the_price(sign_in: SignIn) -> None:
    checked = sign_in("ada").check_study(
        text(privacy={"epsilon": 8.0, "delta": 1e-5}, participants={"training_patients": 300})
    )
    assert checked.noise_multiplier is not None
    assert checked.noise_multiplier > 0
    assert len(checked.epsilon_by_round) == 2
    assert checked.epsilon_by_round[-1] == pytest.approx(8.0, rel=0.02)
    assert checked.study["name"] == "tiny"


def test_a_check_of_an_illegal_study_lists_the_faults_one_a_line(sign_in: SignIn) -> None:
    with pytest.raises(HubRefusedError) as caught:
        sign_in("ada").check_study(text(round=3))
    assert "round: unknown key" in caught.value.message.splitlines()[1]
    assert caught.value.remedy


def test_a_proposed_study_waits_and_can_be_followed(sign_in: SignIn) -> None:
    client = sign_in("ada")
    study = client.propose_study(text(), ["northgate", "riverside"])
    assert study.state == "proposed"
    assert {site.state for site in study.sites} == {"invited"}
    assert client.study(study.digest).name == "tiny"
    assert client.rounds(study.digest) == []
    assert client.versions(study.digest) == []


@pytest.mark.parametrize("name", ["claire", "otto"])
def test_only_a_researcher_proposes(sign_in: SignIn, name: str) -> None:
    with pytest.raises(HubRefusedError) as caught:
        sign_in(name).propose_study(text(), ["northgate"])
    assert not isinstance(caught.value, SignedOutError)


def test_what_is_not_there_is_refused_in_words(sign_in: SignIn) -> None:
    with pytest.raises(HubRefusedError) as caught:
        sign_in("ada").rounds(ANY_DIGEST)
    assert caught.value.message
    assert caught.value.remedy


def test_an_operator_invites_and_adds(sign_in: SignIn) -> None:
    client = sign_in("otto")
    invitation = client.invite_site("harbour")
    assert invitation.name == "harbour"
    assert len(invitation.code) > 8
    client.add_person("rosa", "clinician", "another long password")
    assert {"ada", "rosa"} <= {person.name for person in client.people()}


def test_others_neither_invite_nor_list_people(sign_in: SignIn) -> None:
    client = sign_in("claire")
    with pytest.raises(HubRefusedError):
        client.invite_site("harbour")
    with pytest.raises(HubRefusedError):
        client.people()
