"""The doctor looks at the listener: what keeps it from starting, and what keeps senders from being served."""

import errno
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from site_node.doctor.examination import checks_of
from site_node.doctor.finding import Finding, Level
from site_node.doctor.listener import Place, examine, verdict_on_certificate, verdict_on_place, verdict_on_room
from site_node.listener_settings import ListenerSettings
from site_node.settings import load_settings
from tests.fakes.certificates import Authority
from tests.fakes.orthanc import free_port
from tests.fakes.running_listener import make_site, running_listener

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def looked_at(folder: Path, **block: Any) -> dict[str, Finding]:
    found = examine(load_settings(make_site(folder, **block).root))
    assert all(finding.remedy for finding in found if finding.level != "ok")
    return {finding.check: finding for finding in found}


def test_the_ingest_process_s_user_looks_at_it() -> None:
    assert "site_node.doctor.listener" in {check.module for check in checks_of("ingest")}


def test_a_site_without_a_listener_has_nothing_to_heed(tmp_path: Path) -> None:
    paths = make_site(tmp_path)
    file = yaml.safe_load(paths.configuration.read_text(encoding="utf-8"))
    del file["listener"]
    paths.configuration.write_text(yaml.safe_dump(file), encoding="utf-8")
    assert [finding.level for finding in examine(load_settings(paths.root))] == ["ok"]


def test_missing_certificates_and_a_disk_too_small_are_problems(tmp_path: Path) -> None:
    tls = {"certificate": "nothing.crt", "key": "nothing.key", "ca": "nothing.crt"}
    found = looked_at(tmp_path, tls=tls, min_free_mb=1 << 40)
    assert {check: finding.level for check, finding in found.items()} == {
        "listener": "warning", "listener tls": "problem", "listener room": "problem",
    }  # fmt: skip
    assert "every object is refused" in found["listener room"].says


def test_real_certificates_are_read_and_their_end_is_said(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "ca")
    certificate, key = authority.sign("listener")
    tls = {"certificate": str(certificate), "key": str(key), "ca": str(authority.file)}
    found = looked_at(tmp_path, tls=tls)
    assert found["listener tls"].level == "warning"  # the tests' certificates are good for a day
    (tmp_path / "ca" / "listener.key").write_text("no key", encoding="ascii")
    assert looked_at(tmp_path / "again", tls=tls)["listener tls"].level == "problem"


def test_a_listener_that_runs_is_told_from_another_program_at_its_port(tmp_path: Path) -> None:
    port = free_port()
    paths = make_site(tmp_path, port=port)

    def seen() -> Finding:
        return next(finding for finding in examine(load_settings(paths.root)) if finding.check == "listener")

    assert (seen().level, "does not run" in seen().says) == ("warning", True)
    with running_listener(paths):
        assert (seen().level, "runs on" in seen().says) == ("ok", True)
        text = paths.configuration.read_text(encoding="utf-8")
        paths.configuration.write_text(text.replace(f"port: {port}", f"port: {free_port()}"), encoding="utf-8")
        assert (seen().level, "and not on" in seen().says) == ("warning", True)
    with socket.socket() as other:
        paths.configuration.write_text(text, encoding="utf-8")
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        assert (seen().level, "Another program" in seen().remedy) == ("problem", True)


@pytest.mark.parametrize(
    ("is_running", "error", "level"),
    [
        (False, None, "warning"), (False, errno.EACCES, "problem"), (False, errno.EADDRNOTAVAIL, "problem"),
        (False, errno.EADDRINUSE, "problem"), (True, errno.EADDRINUSE, "ok"), (True, None, "warning"),
    ],
)  # fmt: skip
def test_where_it_listens_is_judged_by_lock_and_port(is_running: bool, error: int | None, level: Level) -> None:
    settings = ListenerSettings.model_validate({"callers": [{"ae_title": "CT1"}]})
    assert [finding.level for finding in verdict_on_place(settings, Place(is_running, error))] == [level]


def test_a_listener_that_lets_nobody_in_is_a_warning() -> None:
    found = verdict_on_place(ListenerSettings(), Place(True, errno.EADDRINUSE))
    assert [finding.level for finding in found] == ["warning", "ok"]


@pytest.mark.parametrize(("days_left", "level"), [(-1, "problem"), (29, "warning"), (31, "ok"), (400, "problem")])
def test_a_certificate_is_judged_by_its_days(days_left: int, level: Level) -> None:
    last = NOW + timedelta(days=days_left)  # good for a year before it ends
    found = verdict_on_certificate("It", last - timedelta(days=365), last, NOW, "Renew it.")
    assert found.level == level


@pytest.mark.parametrize(
    ("free", "may_write", "level"), [(2047, True, "problem"), (2048, True, "ok"), (4096, False, "problem")]
)
def test_room_is_what_the_listener_itself_demands(free: int, may_write: bool, level: Level) -> None:
    assert verdict_on_room(free << 20, 2048, may_write=may_write).level == level
