"""`wardround site doctor` beside real things: a hub with TLS, a Redis, a PACS, a gate, decoders, and other users."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from protocol.signing import SigningKey
from site_node.agent.state import AgentState, write_state
from site_node.cli import app
from site_node.doctor import decoders
from site_node.doctor.examination import CHECKS, examine
from site_node.doctor.parts import ways_of
from site_node.governance.gate import Gate
from site_node.settings import SitePaths, load_settings
from tests.fakes.certificates import Authority
from tests.fakes.orthanc import free_port, orthanc
from tests.fakes.running_workers import running_redis
from tests.fakes.served_hub import served
from tests.fakes.walls import missing, only_what_is_needed
from tests.fakes.wire_hub import WireHub

ROOT = Path(__file__).parents[3]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SitePaths:
    for name in [name for name in os.environ if name.upper().endswith("_PROXY") or name.startswith("SSL_CERT")]:
        monkeypatch.delenv(name)
    (tmp_path / "images").mkdir()
    site = tmp_path / "site"
    words = ["init", site, "--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", tmp_path / "images"]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    return SitePaths(site)


def settle(paths: SitePaths, **changes: Any) -> None:
    """Change keys of site.yaml."""
    file = yaml.safe_load(paths.configuration.read_text(encoding="utf-8")) | changes
    paths.configuration.write_text(yaml.safe_dump(file), encoding="utf-8")


def enrolled(paths: SitePaths, hub: WireHub, hub_url: str) -> None:
    settle(paths, hub=hub_url)
    paths.hub_key.write_text(hub.key.public.text, encoding="ascii")
    write_state(paths, AgentState(0, hub.key.public))
    hub.transport_key = SigningKey.load_or_create(paths.transport_key).public


def looked(paths: SitePaths, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor; return its status and the findings by name."""
    result = CliRunner().invoke(app, ["doctor", str(paths.root), "--json", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(result.stdout)
    assert document["status"] == result.exit_code
    for finding in document["findings"]:
        assert finding["level"] == "ok" or finding["remedy"], finding
    return result.exit_code, {finding["check"]: finding for finding in document["findings"]}


def test_a_new_site_is_told_what_to_do_next(paths: SitePaths) -> None:
    status, found = looked(paths, "--part", "gate")
    assert status == 2
    assert found["enrolment"]["level"] == found["gate"]["level"] == "problem"
    assert "enroll" in found["enrolment"]["remedy"]
    assert found["work"]["says"].startswith("Idle")


def test_a_key_beside_the_images_that_it_seals_is_a_warning(paths: SitePaths) -> None:
    found = looked(paths, "--part", "worker")[1]["cache key"]
    assert (found["level"], "cache_key" in found["remedy"]) == ("warning", True)


def test_a_key_on_a_disk_that_forgets_is_none(paths: SitePaths) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as forgets:
        if Path(forgets).stat().st_dev == paths.worker.stat().st_dev:
            pytest.skip("one file system only")
        settle(paths, cache_key=f"{forgets}/not-yet-there/cache.key")
        assert looked(paths, "--part", "worker")[1]["cache key"]["level"] == "ok"


def test_a_gate_that_runs_is_seen_by_its_lock(paths: SitePaths) -> None:
    hub = WireHub()
    enrolled(paths, hub, "http://127.0.0.1:9")
    gate = Gate(load_settings(paths.root))
    try:
        assert looked(paths, "--part", "gate")[1]["gate"]["level"] == "problem"
        with gate._alone():
            status, found = looked(paths, "--part", "gate")
        assert (status, found["gate"]["says"]) == (0, "The gate is running.")
        assert {found[name]["level"] for name in ("enrolment", "ledger", "approvals", "work")} == {"ok"}
    finally:
        gate.close()


def test_the_hub_is_reached_as_the_agent_reaches_it(paths: SitePaths) -> None:
    hub = WireHub()
    with served(hub) as url:
        enrolled(paths, hub, url)
        _, found = looked(paths, "--part", "agent")
    assert {found[name]["level"] for name in ("hub", "clock", "enrolment")} == {"ok"}
    assert "GET /v1/mailbox" in hub.requests


@pytest.mark.parametrize(("ahead", "level"), [(30.0, "warning"), (-7200.0, "problem")])
def test_a_clock_beside_the_hub_s_is_measured(paths: SitePaths, ahead: float, level: str) -> None:
    hub = WireHub()
    with served(hub, ahead_seconds=ahead) as url:
        enrolled(paths, hub, url)
        _, found = looked(paths, "--part", "agent")
    assert found["clock"]["level"] == level
    assert ("behind" if ahead > 0 else "ahead of") in found["clock"]["says"]


def test_a_hospital_s_own_authority_is_trusted_once_the_bundle_is_named(
    paths: SitePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, authority = WireHub(), Authority.make(tmp_path / "tls")
    with served(hub, authority.sign("localhost")) as url:
        enrolled(paths, hub, url)
        status, found = looked(paths, "--part", "agent")
        assert (status, "no authority trusted" in found["hub"]["says"]) == (2, True)
        assert "SSL_CERT_FILE" in found["hub"]["remedy"]
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        _, found = looked(paths, "--part", "agent")
        assert {found[name]["level"] for name in ("hub", "ca bundle", "enrolment")} == {"ok"}


def test_a_proxy_that_lets_nobody_through_is_named(
    paths: SitePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = WireHub()
    with served(WireHub()) as proxy:  # it knows no CONNECT
        enrolled(paths, hub, "https://hub.example.invalid")
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("//", "//ward:round@"))
        status, found = looked(paths, "--part", "agent")
    assert status == 2
    assert "proxy" in found["hub"]["says"].lower()
    assert "round" not in found["hub"]["says"].replace("Wardround", "")


def test_another_hub_at_the_same_address_is_a_problem(paths: SitePaths) -> None:
    hub, impostor = WireHub(), WireHub()
    with served(impostor) as url:
        enrolled(paths, hub, url)
        status, found = looked(paths, "--part", "agent")
    assert (status, "another key" in found["hub"]["says"]) == (2, True)
    assert "GET /v1/mailbox" not in impostor.requests  # nothing more is said to it


def test_a_hub_that_has_suspended_the_site_is_told_from_one_that_is_away(paths: SitePaths) -> None:
    hub = WireHub(refuses=True)
    with served(hub) as url:
        enrolled(paths, hub, url)
        hub.transport_key = SigningKey.generate().public  # it knows this site's key no more
        status, found = looked(paths, "--part", "agent")
    assert status == 2
    assert (found["hub"]["level"], found["enrolment"]["level"]) == ("ok", "problem")


def test_a_lost_transport_key_is_not_made_anew(paths: SitePaths) -> None:
    hub = WireHub()
    with served(hub) as url:
        enrolled(paths, hub, url)
        paths.transport_key.unlink()
        _, found = looked(paths, "--part", "agent")
    assert found["enrolment"]["level"] == "problem"
    assert not paths.transport_key.exists()


def test_redis_is_asked_as_the_worker_asks_it(paths: SitePaths, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with running_redis(tmp_path / "redis") as url:
        settle(paths, redis=url)
        findings = list(_findings(paths, "redis"))
        assert [finding["level"] for finding in findings] == ["ok"]
    assert [finding["level"] for finding in _findings(paths, "redis")] == ["problem"]


def test_a_redis_with_a_password_is_told_from_one_that_is_away(paths: SitePaths, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    with running_redis(tmp_path / "redis", "--requirepass", "hunter2") as url:
        settle(paths, redis=url)
        (finding,) = _findings(paths, "redis")
    assert "does not let the worker in" in finding["says"]
    assert "hunter2" not in json.dumps(finding)


def test_every_transfer_syntax_s_sample_is_decoded_to_the_picture_that_went_in() -> None:
    errors = {syntax: decoders.error_of(syntax, content) for syntax, content in decoders.sample_files()}
    assert len(errors) == 16
    assert decoders.verdict_on_syntaxes(errors).level == "ok", errors
    assert {syntax for syntax, error in errors.items() if error} <= decoders.LOSSY


def test_a_decoder_that_is_not_installed_is_found_by_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder

    for plugin in list(JPEGLSLosslessDecoder.available_plugins):
        monkeypatch.delitem(JPEGLSLosslessDecoder._available, plugin)
    errors = {syntax: decoders.error_of(syntax, content) for syntax, content in decoders.sample_files()}
    found = decoders.verdict_on_syntaxes(errors)
    assert (found.level, found.says) == ("problem", "Not decoded: JPEG-LS Lossless Image Compression.")


def test_a_damaged_picture_is_no_decoded_one() -> None:
    for syntax, content in decoders.sample_files():
        changed = bytearray(content)
        changed[-60] ^= 0x55
        error = decoders.error_of(syntax, bytes(changed))
        assert error is None or error > 0 or syntax.endswith(".99"), syntax


def test_the_pacs_is_echoed(paths: SitePaths) -> None:
    with orthanc() as server:
        settle(paths, pacs={"host": "127.0.0.1", "port": server.port})
        status, found = looked(paths, "--part", "ingest")
        assert (status, found["pacs"]["says"]) == (0, "C-ECHO answered by PACS.")
        settle(paths, pacs={"host": "127.0.0.1", "port": server.port, "ae_title": "ANOTHER"})
        assert looked(paths, "--part", "ingest")[0] in (0, 2)  # Orthanc may be set to answer to any name
    settle(paths, pacs={"host": "127.0.0.1", "port": free_port()})
    status, found = looked(paths, "--part", "ingest")
    assert (status, found["pacs"]["level"]) == (2, "problem")


def test_a_policy_that_does_not_parse_is_a_finding_and_the_others_go_on(paths: SitePaths) -> None:
    (paths.root / "policy.yaml").write_text("approval: [", encoding="utf-8")
    status, found = looked(paths, "--part", "gate")
    assert status == 2
    assert found["enrolment, ledger, approvals"]["level"] == "problem"
    assert found["work"]["level"] == "ok"


def test_a_check_that_breaks_is_a_finding_without_its_words(paths: SitePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ValueError("PATIENT^NAME")

    monkeypatch.setattr("site_node.doctor.memory.examine", broken)
    found = [finding for finding in examine(load_settings(paths.root), "worker") if finding["check"] == "memory"]
    assert [finding["level"] for finding in found] == ["problem"]
    assert "PATIENT" not in json.dumps(found)


def test_the_whole_examination_prints_each_remedy_beneath_its_fault(paths: SitePaths) -> None:
    result = CliRunner().invoke(app, ["doctor", str(paths.root)])
    assert result.exit_code == 2
    lines = result.stdout.splitlines()
    faults = [number for number, line in enumerate(lines) if line.startswith(("PROBLEM", "WARNING"))]
    assert faults
    assert all(lines[number + 1].lstrip().startswith("→") for number in faults)


def test_the_doctor_changes_nothing(paths: SitePaths) -> None:
    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in paths.root.rglob("*") if p.is_file()}

    before = state()
    looked(paths)
    assert state() == before


@pytest.mark.parametrize("user", [0, 7, 8])
def test_each_part_is_looked_at_by_its_own_user_alone(user: int) -> None:
    ways = ways_of(user, {"gate": 7, "worker": 8, "agent": 9})
    here = {part for part, way in ways.items() if way == "here"}
    own: dict[int, set[str]] = {0: set(), 7: {"gate"}, 8: {"worker"}}
    assert here == {"settings", "ingest"} | own[user]
    assert set(ways.values()) - {"here"} == ({"as its user"} if user == 0 else {"unseen"})


ROLES = {"gate": 54321, "worker": 54322, "agent": 54323, "ingest": 54324}
GROUP = 54320


@pytest.fixture
def walled_site(paths: SitePaths) -> Iterator[SitePaths]:
    """A site whose processes have a user each, in a folder that each may pass through."""
    if (why := missing()) is not None:
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="doctor-"))
    folder.chmod(0o755)
    settle(paths, images=[str(folder / "images")])
    (folder / "images").mkdir()
    moved = SitePaths(Path(shutil.copytree(paths.root, folder / "site")))
    for place in (moved.root, *moved.root.rglob("*")):
        user = next((ROLES[part] for part in place.relative_to(moved.root).parts if part in ROLES), 0)
        os.chown(place, user, GROUP)
        is_private = user != 0
        place.chmod((0o2700 if is_private else 0o2750) if place.is_dir() else (0o600 if is_private else 0o640))
    yield moved
    shutil.rmtree(folder)


def looked_by(paths: SitePaths, user: int, part: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor as a user, with a view of the disk in which everybody may start Python."""
    view = ["unshare", "--mount", "--propagation", "private", "sh", "-c", only_what_is_needed(), "view"]
    identity = [] if user == 0 else ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", "--"]
    words = [sys.executable, "-m", "site_node.cli", "doctor", str(paths.root), "--part", part, "--json"]
    done = subprocess.run([*view, *identity, *words], capture_output=True, cwd="/", check=False)
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["check"]: finding for finding in findings}


def test_root_looks_at_each_part_with_the_rights_of_its_user(walled_site: SitePaths) -> None:
    images = Path(load_settings(walled_site.root).images[0])
    images.chmod(0o700)  # root could read it; the worker cannot
    _, found = looked_by(walled_site, 0, "worker")
    assert found["images"]["level"] == "problem"
    assert found["decoders"]["level"] == "ok"
    os.chown(images, ROLES["worker"], GROUP)
    _, found = looked_by(walled_site, 0, "worker")
    assert found["images"]["level"] == "ok"
    assert looked_by(walled_site, 0, "settings")[1]["users"]["level"] == "ok"


def test_a_user_of_one_part_looks_at_its_own_and_is_told_what_it_may_not_see(walled_site: SitePaths) -> None:
    status, found = looked_by(walled_site, ROLES["worker"], "gate")
    assert (status, found["gate"]["level"]) == (1, "unseen")
    assert "as root" in found["gate"]["remedy"]
    status, found = looked_by(walled_site, ROLES["gate"], "gate")
    assert (status, found["enrolment"]["level"]) == (2, "problem")


READS_PATIENTS = ("site_node.dicom", "site_node.cohort", "site_node.training", "site_node.tasks", "torch", "pydicom")
NETWORK = ("httpx", "socket", "urllib.request", "http.client", "site_node.agent", "kombu", "redis")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.part}-{check.title}")
def test_no_check_joins_what_rule_1_parts(check: Any) -> None:
    """The agent's checks import nothing that reads patients or ledgers; those of gate and settings reach no network."""
    tree = ast.parse((ROOT / f"{check.module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    forbidden: dict[str, tuple[str, ...]] = {
        "agent": (*READS_PATIENTS, "site_node.governance"),
        "gate": NETWORK,
        "settings": (*NETWORK, "site_node.governance"),
        "worker": ("httpx", "site_node.agent"),
        "ingest": ("site_node.governance", "site_node.agent"),
    }
    assert not [name for name in names if name.startswith(forbidden[check.part])]


def _findings(paths: SitePaths, check: str) -> list[dict[str, Any]]:
    from site_node.doctor.queue import examine as examine_queue

    return [f.as_json("worker") for f in examine_queue(load_settings(paths.root)) if f.check == check]
