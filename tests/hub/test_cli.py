"""`wardround hub` as an operator types it, with the server as a real process."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from hub.cli import app
from hub.errors import SettingsError
from hub.serving import bind
from hub.settings import load_settings
from tests.hub.conftest import PASSWORD

START_SECONDS = 30.0


def run(*arguments: str | Path, password: str = PASSWORD) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"WARDROUND_PASSWORD": password})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = run("init", tmp_path / "hub")
    assert made.exit_code == 0, made.output
    return tmp_path / "hub"


def test_init_makes_a_hub_once(folder: Path) -> None:
    before = (folder / "hub.key").read_bytes()
    again = run("init", folder, "--json")
    assert json.loads(again.output)["dir"] == str(folder)
    assert (folder / "hub.key").read_bytes() == before
    for secret in ("hub.key", "token.key"):
        assert (folder / secret).stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_people_are_added_listed_and_disabled(folder: Path) -> None:
    assert run("users", "add", folder, "alice", "--role", "operator").exit_code == 0
    assert run("users", "disable", folder, "alice").exit_code == 0
    (alice,) = json.loads(run("users", "list", folder, "--json").output)
    assert (alice["name"], alice["role"], alice["disabled"]) == ("alice", "operator", True)


def test_a_hospital_is_invited_and_listed(folder: Path) -> None:
    invitation = json.loads(run("invite", folder, "st-anna", "--json").output)
    assert invitation["name"] == "st-anna"
    assert invitation["code"]
    assert json.loads(run("sites", folder, "--json").output)[0]["state"] == "invited"


def test_the_audit_log_is_verified_against_a_kept_head(folder: Path, tmp_path: Path) -> None:
    run("invite", folder, "st-anna")
    kept = tmp_path / "head.json"
    kept.write_text(run("audit", "head", folder).output)
    run("invite", folder, "st-bela")
    verdict = run("audit", "verify", folder, "--head", kept, "--json")
    assert verdict.exit_code == 0
    assert json.loads(verdict.output)["entries"] == 2
    kept.write_text("{}")
    assert run("audit", "verify", folder, "--head", kept).exit_code == 1


def test_the_schema_needs_no_hub() -> None:
    assert "properties" in json.loads(run("study-schema").output)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sites", "nowhere"), "is not a hub's folder. Make it with `wardround hub init nowhere`"),
        (("worker", "HUB"), "Give --redis"),
        (("invite", "HUB", "St. Anna"), "is not a usable name"),
        (("users", "add", "HUB", "alice", "--role", "king"), "The roles are researcher, clinician, operator."),
        (("users", "disable", "HUB", "nobody"), "There is no account 'nobody'"),
        (("suspend", "HUB", "nobody"), "There is no site 'nobody'"),
    ],
)
def test_a_mistake_gets_one_sentence_with_the_remedy(folder: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*(folder if argument == "HUB" else argument for argument in arguments))
    assert result.exit_code == 1
    assert sentence in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("text", ["- a", "port: many", "colour: red", "a: [", "\t"])
def test_unusable_settings_are_named(folder: Path, text: str) -> None:
    (folder / "hub.yaml").write_text(text)
    with pytest.raises(SettingsError):
        load_settings(folder)


def test_options_win_over_the_file(folder: Path) -> None:
    (folder / "hub.yaml").write_text("port: 9000\nhost: 0.0.0.0\n")
    settings = load_settings(folder, port=9001, host=None)
    assert (settings.host, settings.port) == ("0.0.0.0", 9001)  # noqa: S104 - compared, not bound


def test_a_taken_port_moves_to_the_next_one_unless_it_is_strict() -> None:
    with bind("127.0.0.1", 0, strict=True) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port, strict=False) as second:
            assert port < second.getsockname()[1] <= port + 50
        with pytest.raises(SettingsError, match="is taken"):
            bind("127.0.0.1", port, strict=True)


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(SettingsError, match="Cannot listen"):
        bind("192.0.2.1", 1, strict=False)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-c", "from hub.cli import app; app()", "serve", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = folder / "hub.address"
        deadline = time.monotonic() + START_SECONDS
        while not address.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(address.read_text())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors
    assert "The hub listens at" in output
    assert not address.exists()


def test_a_real_server_answers_moves_from_a_taken_port_and_ends_at_a_signal(folder: Path) -> None:
    run("users", "add", folder, "alice", "--role", "operator")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with served(folder, "--port", str(port)) as url, httpx.Client(base_url=url, trust_env=False) as client:
            assert not url.endswith(f":{port}")
            assert client.get("/v1/info").json()["service"] == "wardround-hub"
            token = client.post("/v1/token/person", json={"name": "alice", "password": PASSWORD}).json()["access_token"]
            me = client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
            assert me.json() == {"name": "alice", "role": "operator"}
            # A second process writes while the server runs.
            assert run("invite", folder, "st-anna").exit_code == 0
            listed = client.get("/v1/sites", headers={"Authorization": f"Bearer {token}"}).json()
            assert [site["name"] for site in listed] == ["st-anna"]
