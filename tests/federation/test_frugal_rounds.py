"""Whole federations that send less, both ways: over HTTP, through the gates, to the hub's versions and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.storage import round_stores, stores
from protocol.compression.coding import decoded
from protocol.compression.terms import upload_terms
from protocol.digest import digest_of_file, hex_of
from protocol.manifest import manifest_of
from protocol.messages import TaskKind
from protocol.study import StudySpec
from protocol.tensors import Vector
from tests.federation.masked_federation import BASE, PARAMETERS, MaskedFederation, masked_federation

MANIFEST = manifest_of(BASE)
WHOLE = MANIFEST.payload_bytes
PLAIN: dict[str, Any] = {"secure_aggregation": {"method": "none"}, "participants": {"minimum_sites": 4, "quorum": 1.0}}


def frugal(folder: Path, rounds: int, **transport: Any) -> Any:
    return masked_federation(folder, 4, transport=transport, rounds=rounds, **PLAIN)


def mean_of_what_came(federation: MaskedFederation, number: int) -> Vector:
    """Return the weighted mean of the sites' payloads, each opened as the study says."""
    terms = upload_terms(federation.study, MANIFEST, number)
    opened = [decoded(bytes(site.handed[number].data), terms).astype(np.float64) for site in federation.sites]
    weights = np.array([site.patients for site in federation.sites], np.float64)
    return np.asarray((weights[:, None] * opened).sum(0) / weights.sum(), np.float32)


def traffic(federation: MaskedFederation, number: int) -> tuple[int, int]:
    """Return the bytes that the first site sent and fetched for a round's training."""
    with federation.services.reading() as session:
        tasks = round_stores.tasks_of_round(session, federation.study.digest, number, TaskKind.TRAIN)
        return tasks[0].bytes_up, tasks[0].bytes_down


@pytest.mark.parametrize(
    "upload", [["top-k:0.02", "quantise:4"], ["random-k:0.05", "half"], ["quantise:2"]], ids="+".join
)
def test_versions_are_the_mean_of_the_updates_as_they_were_opened(tmp_path: Path, upload: list[str]) -> None:
    with frugal(tmp_path, 2, upload=upload) as federation:
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        before = BASE["w"]
        for number in (1, 2):
            found = federation.weights(number)["w"]
            assert found == pytest.approx(before + mean_of_what_came(federation, number), abs=1e-6)
            before = found
        assert max(len(site.handed[1].data) for site in federation.sites) * 14 < WHOLE


def test_what_top_k_leaves_out_is_made_up_for_in_later_rounds(tmp_path: Path) -> None:
    """The same update every round: with what was left out the model goes nearly as far as with whole updates."""
    with frugal(tmp_path, 12, upload=["top-k:0.2"]) as federation:
        for place, site in enumerate(federation.sites):
            site.trained = lambda _, place=place: {"w": BASE["w"] + np.float32(0.01) * directions(place)}
        federation.propose()
        federation.rest()
        weights = np.array([site.patients for site in federation.sites], np.float64)
        steps = np.stack([0.01 * directions(place) for place in range(4)])
        whole = 12 * (weights[:, None] * steps).sum(0) / weights.sum()
        made = federation.weights(12)["w"].astype(np.float64) - federation.weights(0)["w"]
        assert np.linalg.norm(made - whole) < 0.35 * np.linalg.norm(whole)


def directions(seed: int) -> Vector:
    return np.random.default_rng(seed).normal(size=PARAMETERS).astype(np.float32)


def test_sites_hold_the_hub_s_versions_to_the_bit_and_fetch_differences(tmp_path: Path) -> None:
    with frugal(tmp_path, 4, upload=["quantise:8"], download=["quantise:4", "zstandard"]) as federation:
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        with federation.services.reading() as session:
            versions = [stores.version(session, federation.study.digest, number) for number in range(4)]
        for site in federation.sites:
            paths = [site.settings.paths.blobs / hex_of(version.weights_digest) for version in versions]
            assert [digest_of_file(path) for path in paths] == [version.weights_digest for version in versions]
        assert traffic(federation, 1)[1] == WHOLE
        assert all(traffic(federation, number)[1] * 5 < WHOLE for number in (2, 3, 4))


def test_a_site_that_lost_its_versions_fetches_the_whole_and_goes_on(tmp_path: Path) -> None:
    with frugal(tmp_path, 3, upload=[], download=["quantise:8"]) as federation:
        federation.propose()
        while max((r["number"] for r in federation.rounds()), default=0) < 3:
            federation.step()
        for path in federation.sites[0].settings.paths.blobs.iterdir():
            path.unlink()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        assert traffic(federation, 3)[1] >= WHOLE


def test_a_hub_that_is_ended_between_rounds_makes_the_same_versions(tmp_path: Path) -> None:
    found = []
    for folder, restarts in ((tmp_path / "whole", False), (tmp_path / "ended", True)):
        with frugal(folder, 3, upload=["top-k:0.1"], download=["top-k:0.3", "quantise:6"]) as federation:
            federation.propose()
            for _ in range(200):
                if federation.step() == 0:
                    break
                if restarts and len(federation.sites[0].handed) > 1:
                    federation.restart_hub()
            assert federation.state()[0] == "completed", federation.state()
            found.append(federation.weights(3)["w"])
    assert np.array_equal(*found)


def test_a_study_that_is_private_may_send_less(tmp_path: Path) -> None:
    """Rules of both: noise came before the steps, and a residual is of noised differences only."""
    study: StudySpec
    private = {"epsilon": 8.0, "delta": 1e-4}
    participants = {**PLAIN["participants"], "training_patients": 500}
    changes = {**PLAIN, "privacy": private, "participants": participants}
    with masked_federation(tmp_path, 4, transport={"upload": ["top-k:0.1"]}, rounds=2, **changes) as federation:
        study = federation.study
        assert study.privacy.epsilon == 8.0
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
