"""Versions that no power cut may spoil: unsynced only where the next start of the machine finds what was damaged."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from protocol.digest import digest_of_bytes, digest_of_file, hex_of
from protocol.manifest import manifest_of
from protocol.messages import ModelReference
from protocol.signing import SigningKey
from protocol.tensors import encode_weights
from site_node.agent import after_power_cut
from site_node.agent.after_power_cut import check_versions, may_stay_unsynced
from site_node.agent.downloads import fetch_blob, fetch_version
from site_node.agent.hub_client import HubClient
from site_node.enrolment import create_site, enroll_site
from site_node.settings import SitePaths
from tests.fakes.wire_hub import WireHub

MODEL = {"w": np.arange(300, dtype=np.float32)}
DATA = encode_weights(MODEL)
DIGEST = digest_of_bytes(DATA)
VERSION = ModelReference(
    number=1, weights_digest=DIGEST, weights_bytes=len(DATA), manifest_digest=manifest_of(MODEL).digest
)


@pytest.fixture
def hub() -> WireHub:
    hub = WireHub()
    hub.blobs[hex_of(DIGEST)] = DATA
    return hub


@pytest.fixture
def client(hub: WireHub, paths: SitePaths) -> HubClient:
    return hub.client("st-anna", SigningKey.load_or_create(paths.transport_key))


@pytest.fixture
def paths(tmp_path: Path, hub: WireHub) -> SitePaths:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    enroll_site(settings, hub.client("st-anna", SigningKey.load_or_create(settings.paths.transport_key)), "GOOD")
    return settings.paths


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Name the machine's run: the last entry."""
    named: list[str | None] = ["run-1"]
    monkeypatch.setattr(after_power_cut, "boot_id", lambda: named[-1])
    return named


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the files and folders that are put on the disk."""
    names: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


def test_a_version_is_synced_until_the_run_of_the_machine_is_noted(
    paths: SitePaths, client: HubClient, runs: list[str | None], synced: list[str]
) -> None:
    assert not may_stay_unsynced(paths)
    assert fetch_version(client, paths, VERSION)
    assert {hex_of(DIGEST), "blobs"} <= set(synced)


def test_a_version_is_not_synced_where_its_damage_would_be_found(
    paths: SitePaths, client: HubClient, runs: list[str | None], synced: list[str]
) -> None:
    check_versions(paths)
    synced.clear()
    assert fetch_version(client, paths, VERSION)
    assert synced == []
    assert (paths.blobs / hex_of(DIGEST)).read_bytes() == DATA


def test_what_the_gate_reads_is_synced_all_the_same(
    paths: SitePaths, client: HubClient, runs: list[str | None], synced: list[str]
) -> None:
    check_versions(paths)
    synced.clear()
    fetch_blob(client, paths, DIGEST, len(DATA))
    assert {hex_of(DIGEST), "blobs"} <= set(synced)


@pytest.mark.parametrize("left", [b"", DATA[:100], bytes(len(DATA))])
def test_after_another_start_a_damaged_version_is_removed_and_fetched_again(
    paths: SitePaths, client: HubClient, runs: list[str | None], left: bytes
) -> None:
    check_versions(paths)
    fetch_version(client, paths, VERSION)
    (paths.blobs / hex_of(DIGEST)).write_bytes(left)
    runs.append("run-2")
    assert not may_stay_unsynced(paths)
    assert check_versions(paths) == 1
    assert fetch_version(client, paths, VERSION)
    assert (paths.blobs / hex_of(DIGEST)).read_bytes() == DATA


def test_after_another_start_a_whole_version_stays(paths: SitePaths, client: HubClient, runs: list[str | None]) -> None:
    check_versions(paths)
    fetch_version(client, paths, VERSION)
    runs.append("run-2")
    assert check_versions(paths) == 0
    assert may_stay_unsynced(paths)
    assert not fetch_version(client, paths, VERSION)


OTHER = encode_weights({"w": np.ones(300, np.float32)})


def broken_disk(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let reading this one file fail, as a broken sector does."""

    def read(asked: Path) -> str:
        if asked == path:
            raise OSError(errno.EIO, "Input/output error")
        return digest_of_file(asked)

    monkeypatch.setattr(after_power_cut, "digest_of_file", read)


def test_a_version_that_cannot_be_read_is_removed_and_hides_no_other_damage(
    paths: SitePaths, client: HubClient, runs: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted([hex_of(DIGEST), hex_of(digest_of_bytes(OTHER))])
    check_versions(paths)
    for name in names:
        (paths.blobs / name).write_bytes(b"damaged")
    broken_disk(monkeypatch, paths.blobs / names[0])
    runs.append("run-2")
    assert check_versions(paths) == 2
    assert list(paths.blobs.iterdir()) == []
    assert may_stay_unsynced(paths)
    assert fetch_version(client, paths, VERSION)


def test_a_damaged_version_that_cannot_be_removed_leaves_the_check_undone(
    paths: SitePaths, runs: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_versions(paths)
    first, second = sorted([hex_of(DIGEST), hex_of(digest_of_bytes(OTHER))])
    for name in (first, second):
        (paths.blobs / name).write_bytes(b"damaged")
    unlink = Path.unlink

    def torn(path: Path, missing_ok: bool = False) -> None:
        if path.name == first:
            raise OSError(errno.EIO, "Input/output error")
        unlink(path, missing_ok)

    runs.append("run-2")
    with monkeypatch.context() as faults:
        faults.setattr(Path, "unlink", torn)
        with pytest.raises(OSError, match="cannot be removed"):
            check_versions(paths)
    assert not may_stay_unsynced(paths)
    assert not (paths.blobs / second).exists()
    assert check_versions(paths) == 1
    assert may_stay_unsynced(paths)


def test_a_run_that_cannot_be_noted_syncs_versions(
    paths: SitePaths, client: HubClient, runs: list[str | None], synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(after_power_cut, "write_durably", full)
    assert check_versions(paths) == 0
    assert not may_stay_unsynced(paths)
    fetch_version(client, paths, VERSION)
    assert hex_of(DIGEST) in synced


def test_within_one_run_of_the_machine_nothing_is_digested_again(paths: SitePaths, runs: list[str | None]) -> None:
    check_versions(paths)
    (paths.blobs / hex_of(DIGEST)).write_bytes(b"not looked at")
    assert check_versions(paths) == 0


def test_a_system_that_names_no_runs_syncs_for_ever(
    paths: SitePaths, client: HubClient, runs: list[str | None], synced: list[str]
) -> None:
    runs.append(None)
    check_versions(paths)
    assert not may_stay_unsynced(paths)
    fetch_version(client, paths, VERSION)
    assert hex_of(DIGEST) in synced
