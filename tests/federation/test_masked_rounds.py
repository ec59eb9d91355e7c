"""Whole federations under masks in one process: exact sums, sites lost in every phase, processes ended in any."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.registry.lineage import read_lineage
from hub.storage import stores
from hub.storage.audit_stores import entries
from protocol.secure_messages import MaskingKeys
from protocol.signing import SigningKey
from site_node.governance import masking
from site_node.governance.context import GateContext
from site_node.governance.peers import write_peers
from tests.federation.masked_federation import (
    ALL,
    HOUR,
    LEFT_AFTER_LOSS,
    NAMES,
    PHASE_IS_OVER,
    MaskedFederation,
    assert_exact,
    masked_federation,
    said_by,
)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path) as opened:
        opened.propose()
        yield opened


def test_the_version_is_the_plain_sum_of_the_sites_integers_to_the_bit(federation: MaskedFederation) -> None:
    federation.rest()
    assert_exact(federation, ALL)
    # The true weighted mean, unrounded, lies within the rounding's step of it.
    weights = np.array([min(site.patients, 100) for site in federation.sites], np.float64)
    updates = np.stack([site.trained(1)["w"] - site.base["w"] for site in federation.sites]).astype(np.float64)
    mean = (weights[:, None] * updates).sum(0) / weights.sum()
    found = federation.weights(1)["w"].astype(np.float64) - federation.weights(0)["w"]
    assert np.abs(found - mean).max() < 5 * federation.terms.unit * 100 / weights.sum() + 1e-6


def test_what_lies_at_the_hub_are_masked_vectors_of_half_the_size(federation: MaskedFederation) -> None:
    federation.until("seen")
    blobs = [path.read_bytes() for path in (federation.folder / "hub" / "blobs").rglob("*") if path.is_file()]
    for site in federation.sites:
        plain = site.handed[1].data
        assert len(plain) == 2 * 1000
        assert not any(plain[:64] in blob or plain[-64:] in blob for blob in blobs)
    assert sum(len(blob) == federation.terms.payload_bytes == 2012 for blob in blobs) == 5


@pytest.mark.parametrize(("phase", "survivors"), LEFT_AFTER_LOSS.items())
def test_a_site_lost_in_any_phase_costs_the_others_nothing_but_its_part(
    federation: MaskedFederation, phase: str, survivors: tuple[str, ...]
) -> None:
    federation.until(phase)
    federation.lose("clara")
    federation.outlast()
    assert_exact(federation, survivors)


def test_two_of_eight_may_be_lost_and_three_may_not(tmp_path: Path) -> None:
    for lost, completes in ((("bela", "hugo"), True), (("bela", "dora", "hugo"), False)):
        with masked_federation(tmp_path / str(len(lost)), 8) as federation:
            federation.propose()
            federation.until("uploads")
            federation.lose(*lost)
            federation.pass_time(2 * HOUR)
            if completes:
                assert_exact(federation, tuple(name for name in NAMES if name not in lost))
            else:
                assert federation.state()[0] == "running"  # below the threshold the round stays open: they may return
                assert federation.phase() == "uploads"
                federation.find_again("bela")
                assert_exact(federation, tuple(name for name in NAMES if name not in ("dora", "hugo")))


@pytest.mark.parametrize("phase", ["keys", "shares"])
def test_a_crowd_below_the_one_that_was_approved_is_not_opened_by_the_hub_either(tmp_path: Path, phase: str) -> None:
    terms: dict[str, Any] = {"participants": {"minimum_sites": 8, "quorum": 0.1}}  # six must be there
    for lost, completes in ((("bela", "hugo"), True), (("bela", "dora", "hugo"), False)):
        with masked_federation(tmp_path / str(len(lost)), 8, **terms) as federation:
            federation.propose()
            federation.until(phase)
            federation.lose(*lost)
            federation.pass_time(PHASE_IS_OVER)
            if completes:
                assert_exact(federation, tuple(name for name in NAMES if name not in lost))
            else:
                assert federation.state()[0] == "failed"
                assert "; 6 are needed. Nothing was opened." in federation.state()[1]


def test_five_of_the_six_left_could_open_a_sum_that_counts_on_six_and_wait(tmp_path: Path) -> None:
    with masked_federation(tmp_path, 8, participants={"minimum_sites": 8, "quorum": 0.1}) as federation:
        federation.propose()
        federation.until("keys")
        federation.lose("bela", "hugo")
        federation.clock.now += PHASE_IS_OVER
        federation.until("uploads")  # of a roster of six, whose own threshold is five
        federation.lose("dora")
        federation.pass_time(2 * HOUR)
        assert (federation.state()[0], federation.phase()) == ("running", "uploads")
        federation.find_again("dora")
        assert_exact(federation, tuple(name for name in NAMES if name not in ("bela", "hugo")))


@pytest.mark.parametrize("phase", ["keys", "shares", "seen", "reveals"])
def test_below_the_threshold_the_round_fails_closed(federation: MaskedFederation, phase: str) -> None:
    federation.until(phase)
    federation.lose("bela", "clara")
    federation.pass_time(PHASE_IS_OVER)
    state, reason = federation.state()
    assert state == "failed"
    assert "4 are needed. Nothing was opened." in reason
    assert federation.phase() == "failed"
    assert [r["number"] for r in federation.rounds() if r["state"] == "complete"] == [0]


@pytest.mark.parametrize("liar", ["anna", "clara", "emil"])
def test_one_hospital_with_wrong_shares_keeps_no_sum_closed_and_is_named(
    federation: MaskedFederation, liar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(context: GateContext, *given: Any) -> dict[str, tuple[bytes, bytes]]:
        shares = honest(context, *given)
        return {name: (bytes(33), bytes(33)) for name in shares} if context.settings.name == liar else shares

    honest: Any = masking._shares_held
    monkeypatch.setattr(masking, "_shares_held", held)
    federation.rest()
    assert_exact(federation, ALL)
    with federation.services.reading() as session:
        found = [row.entry for row in entries(session, 0, 10_000) if b"masking.wrong-shares" in row.entry]
    assert all(f'"sites":["{liar}"]'.encode() in entry for entry in found)
    assert found or liar == "emil"  # the last to reveal is not read where the others are enough


def test_a_hub_that_is_ended_in_any_phase_goes_on_where_it_was(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals", "opened"):
        federation.until(phase)
        federation.restart_hub()
    federation.rest()
    assert_exact(federation, ALL)


def test_gates_that_are_ended_in_any_phase_go_on_where_they_were(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals"):
        federation.until(phase)
        for site in federation.sites:
            site.start()
    federation.rest()
    assert_exact(federation, ALL)


def test_after_the_round_no_secret_is_left_at_any_site(federation: MaskedFederation) -> None:
    federation.until("shares")
    secrets = []
    for site in federation.sites:
        database = site.gate._context.database
        for row in database.execute("SELECT channel_key, mask_key, seed FROM masking"):
            secrets += [bytes(row[name]) for name in ("channel_key", "mask_key", "seed")]
    assert len(secrets) == 15
    federation.rest()
    assert federation.state()[0] == "completed"
    for site in federation.sites:
        rows = site.gate._context.database.execute("SELECT * FROM masking").fetchall()
        assert [(row["phase"], row["channel_key"], row["seed"], row["own_shares"]) for row in rows] == [
            ("revealed", None, None, None)
        ]
    for path in federation.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path.name


def test_a_member_whose_key_is_not_the_pinned_one_costs_only_the_site_that_noticed(
    federation: MaskedFederation,
) -> None:
    anna, bela = federation.site("anna"), federation.site("bela")
    keys = {site.name: site.identity for site in federation.sites if site.name not in ("anna", "bela")}
    write_peers(anna.settings.paths, {**keys, bela.name: SigningKey.generate().public})
    federation.rest()
    federation.pass_time(2 * HOUR)
    assert_exact(federation, ("bela", "clara", "dora", "emil"))
    tasks = {site["site"]: site for site in federation.rounds()[-1]["sites"]}
    assert tasks["anna"]["reason"] == "unknown-peer"


def test_a_failed_round_is_made_up_for_by_a_new_one_with_new_keys(tmp_path: Path) -> None:
    with masked_federation(tmp_path, rounds=2, privacy={"epsilon": None, "spare_tasks": 1}) as federation:
        federation.propose()
        federation.until("seen")
        federation.lose("bela", "clara")
        federation.pass_time(PHASE_IS_OVER)
        assert [(r["number"], r["state"]) for r in federation.rounds()] == [
            (0, "complete"),
            (1, "failed"),
            (2, "training"),
        ]
        federation.find_again("bela", "clara")
        assert federation.state()[0] == "completed"
        assert [r["state"] for r in federation.rounds()] == ["complete", "failed", "complete", "complete"]
        assert np.array_equal(federation.weights(2)["w"], federation.expected(ALL, 2)["w"])
        for site in federation.sites:
            rows = site.gate._context.database.execute("SELECT round, phase FROM masking ORDER BY round").fetchall()
            assert [(row["round"], row["phase"]) for row in rows] == [(1, "ended"), (2, "revealed"), (3, "revealed")]
            sent = [keys for keys in said_by(site) if isinstance(keys, MaskingKeys)]
            assert len({key for keys in sent for key in (keys.channel_key, keys.mask_key)}) == 6


def test_without_a_spare_task_left_the_study_has_failed(tmp_path: Path) -> None:
    with masked_federation(tmp_path, privacy={"epsilon": None, "spare_tasks": 1}) as federation:
        federation.propose()
        for number in (1, 2):
            federation.until_round(number, "shares")
            federation.lose("bela", "clara")
            federation.pass_time(PHASE_IS_OVER)
            for name in ("bela", "clara"):
                federation.site(name).mute = False
        assert federation.state()[0] == "failed"
        assert [r["state"] for r in federation.rounds()] == ["complete", "failed", "failed"]


def test_the_lineage_names_the_survivors_with_the_weight_that_the_hub_knows(federation: MaskedFederation) -> None:
    federation.until("uploads")
    federation.lose("dora")
    federation.pass_time(2 * HOUR)
    with federation.services.reading() as session:
        lineage = read_lineage(stores.version(session, federation.study.digest, 1).lineage)
    assert [(p["site"], p["weight"]) for p in lineage["participants"]] == [
        (name, 1.0) for name in ("anna", "bela", "clara", "emil")
    ]
