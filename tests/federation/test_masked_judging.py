"""Held-out counts under masks in whole federations: one sum is opened, no hospital's own, and judging fails nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hub.registry.lineage import read_lineage
from hub.rounds.judgements import judgements_of_version
from hub.rounds.scoring import PooledReport
from hub.rounds.views import version_validation
from hub.storage import round_stores, stores
from hub.storage.masking_stores import masking_messages, masking_round
from protocol.message import Message
from protocol.messages import EvaluationReport, parse_message
from protocol.metrics import ScoreHistograms, geometric_variance, merge, summarise
from protocol.secure_aggregation.histograms import RING
from protocol.secure_messages import MaskedHistograms, MaskingKeys
from protocol.signing import read_unverified
from protocol.study_parts import HeldOutSplit
from tests.fakes.handing_site import HandingSite
from tests.federation.masked_federation import NAMES, MaskedFederation, masked_federation

HOUR = 3600.0
ALL = NAMES[:5]
SPLITS: tuple[HeldOutSplit, ...] = ("test", "validation")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path, held_out=60) as opened:
        opened.propose()
        yield opened


def opened_on(federation: MaskedFederation, version: int) -> PooledReport | None:
    with federation.services.reading() as session:
        found = judgements_of_version(session, federation.study.digest, version)
        assert round_stores.evaluations_of_study(session, federation.study.digest) == []
    assert all(isinstance(report, PooledReport) for report in found)
    return next((report for report in found if isinstance(report, PooledReport)), None)


def plain_sum(
    federation: MaskedFederation, names: tuple[str, ...], version: int, split: HeldOutSplit
) -> ScoreHistograms:
    return merge([federation.site(name).counted[version][split] for name in names])


def assert_pooled(federation: MaskedFederation, names: tuple[str, ...], version: int) -> None:
    report = opened_on(federation, version)
    assert report is not None, federation.rounds()[version]["reason"]
    assert report.sites == names
    for split in SPLITS:
        found, expected = report.histograms[split], plain_sum(federation, names, version, split)
        assert (found.negative, found.positive) == (expected.negative, expected.positive)
        assert found.noise_variance == pytest.approx(expected.noise_variance)


def said_by(site: HandingSite) -> list[Message]:
    rows = site.gate._context.database.execute("SELECT envelope FROM envelopes ORDER BY number").fetchall()
    return [parse_message(read_unverified(row["envelope"])) for row in rows]


def test_every_version_is_judged_by_the_sum_of_the_sites_counts(federation: MaskedFederation) -> None:
    federation.rest()
    assert federation.state()[0] == "completed", federation.state()
    for version in (0, 1):
        assert_pooled(federation, ALL, version)
    shown = federation.rounds()[1]
    assert shown["metrics"]["auc"] == summarise(merge([plain_sum(federation, ALL, 1, split) for split in SPLITS])).auc
    assert (shown["metrics"]["patients"], shown["metrics"]["counts"]) == (300, "summed under masks")
    assert [(site["evaluate_state"], site["metrics"]) for site in shown["sites"]] == [("accepted", None)] * 5
    with federation.services.reading() as session:
        validation = version_validation(session, federation.study.digest, 1)
    assert validation["sites"] == []
    assert validation["pooled"]["roc"]


def test_nowhere_at_the_hub_lies_a_site_s_own_histogram(federation: MaskedFederation) -> None:
    federation.rest()
    assert federation.state()[0] == "completed"
    kept = [path.read_bytes() for path in (federation.folder / "hub").rglob("*") if path.is_file()]
    assert kept
    for site in federation.sites:
        assert not any(isinstance(message, EvaluationReport) for message in said_by(site))
        assert sum(isinstance(message, MaskedHistograms) for message in said_by(site)) == 2
        for histograms in (counted for version in site.counted.values() for counted in version.values()):
            dense = RING.encode(np.concatenate(histograms.dense())).tobytes()
            sparse = [
                json.dumps(side, separators=(",", ":")).encode() for side in (histograms.negative, histograms.positive)
            ]
            for needle in (dense, dense.hex().encode(), *sparse):
                assert not any(needle in data for data in kept)
    pooled = plain_sum(federation, ALL, 1, "test")  # the search finds what is there
    needle = json.dumps(pooled.negative, separators=(",", ":")).encode()
    assert any(needle in data for data in kept)


def test_training_and_judging_of_one_round_have_keys_of_their_own(federation: MaskedFederation) -> None:
    federation.rest()
    keys = [m for site in federation.sites for m in said_by(site) if isinstance(m, MaskingKeys)]
    assert sorted({(m.round, m.task_kind) for m in keys}) == [(0, "evaluate"), (1, "evaluate"), (1, "train")]
    assert len({key for m in keys for key in (m.channel_key, m.mask_key)}) == 2 * len(keys) == 30
    for site in federation.sites:
        rows = site.gate._context.database.execute("SELECT * FROM masking").fetchall()
        assert {(row["phase"], row["channel_key"], row["seed"], row["own_shares"]) for row in rows} == {
            ("revealed", None, None, None)
        }


@pytest.mark.parametrize(
    ("phase", "survivors"),
    [
        ("keys", ("anna", "bela", "dora", "emil")),
        ("shares", ("anna", "bela", "dora", "emil")),
        ("uploads", ("anna", "bela", "dora", "emil")),
        ("seen", ALL),
        ("reveals", ALL),
    ],
)
def test_a_site_lost_while_a_version_is_judged_leaves_the_others_sum(
    federation: MaskedFederation, phase: str, survivors: tuple[str, ...]
) -> None:
    federation.until_judging(1, phase)
    federation.site("clara").mute = True
    federation.rest()
    federation.pass_time(700.0)
    federation.pass_time(2 * HOUR)
    assert federation.state()[0] == "completed", federation.state()
    assert_pooled(federation, survivors, 1)


@pytest.mark.parametrize("phase", ["keys", "shares", "uploads", "seen", "reveals"])
def test_below_the_threshold_the_version_stays_unjudged_and_the_study_goes_on(tmp_path: Path, phase: str) -> None:
    with masked_federation(tmp_path, held_out=60, rounds=2) as federation:
        federation.propose()
        federation.until_judging(1, phase)
        for name in ("bela", "clara"):
            federation.site(name).mute = True
        federation.rest()
        federation.pass_time(2 * HOUR if phase == "uploads" else 700.0)
        first = federation.rounds()[1]
        assert (first["state"], first["metrics"]) == ("complete", None)
        assert "4 are needed. Nothing was opened. The version stays unjudged." in first["reason"]
        assert opened_on(federation, 1) is None
        for name in ("bela", "clara"):
            federation.site(name).mute = False
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        assert_pooled(federation, ALL, 2)


def test_a_hub_that_is_ended_in_any_phase_of_judging_goes_on_where_it_was(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals", "opened"):
        federation.until_judging(1, phase)
        federation.restart_hub()
    federation.rest()
    assert federation.state()[0] == "completed"
    assert_pooled(federation, ALL, 1)


def test_an_opening_that_was_lost_from_the_queue_is_asked_for_again(federation: MaskedFederation) -> None:
    federation.until_judging(1, "reveals")
    while federation.phase(1, "evaluate") != "opened":
        assert sum(site.step() for site in federation.sites)
    federation.queue.items.clear()
    federation.restart_hub()
    federation.rest()
    assert federation.state()[0] == "running"
    federation.pass_time(60.0)
    assert federation.state()[0] == "completed"
    assert_pooled(federation, ALL, 1)


def test_gates_that_are_ended_in_any_phase_of_judging_go_on_where_they_were(federation: MaskedFederation) -> None:
    for phase in ("keys", "shares", "uploads", "seen", "reveals"):
        federation.until_judging(1, phase)
        for site in federation.sites:
            site.start()
    federation.rest()
    assert federation.state()[0] == "completed"
    assert_pooled(federation, ALL, 1)


def test_noise_adds_up_under_the_masks_and_counts_below_zero_keep_their_sign(tmp_path: Path) -> None:
    with masked_federation(tmp_path, held_out=60, evaluation={"noise_epsilon": 0.5, "at_most": 2}) as federation:
        federation.propose()
        federation.until_judging(1, "uploads")
        federation.site("dora").mute = True
        federation.rest()
        federation.pass_time(2 * HOUR)
        left = tuple(name for name in ALL if name != "dora")
        assert federation.state()[0] == "completed", federation.state()
        assert_pooled(federation, left, 1)
        report = opened_on(federation, 1)
        assert report is not None
        counts = [count for h in report.histograms.values() for _, count in (*h.negative, *h.positive)]
        assert min(counts) < 0
        assert {h.noise_variance for h in report.histograms.values()} == {4 * geometric_variance(0.5)}
        shown = federation.rounds()[1]["metrics"]
        assert (shown["patients"], shown["privacy"], shown["noise_epsilon"]) == (None, "noised", 0.5)


def test_a_site_without_training_patients_takes_part_in_the_masks_of_judging(tmp_path: Path) -> None:
    with masked_federation(tmp_path, held_out=60, judging_only=("emil",)) as federation:
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        assert_pooled(federation, ALL, 1)
        with federation.services.reading() as session:
            lineage = read_lineage(stores.version(session, federation.study.digest, 1).lineage)
        assert [p["site"] for p in lineage["participants"]] == list(ALL[:4])


def test_with_fewer_than_four_judges_nothing_leaves_in_clear_and_the_round_says_why(tmp_path: Path) -> None:
    with masked_federation(tmp_path, held_out=60) as federation:
        for name in ("bela", "clara"):
            federation.site(name).held_out = 0
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        reason = "3 sites hold patients out; a sum under masks needs 4. The version stays unjudged."
        assert [(r["metrics"], r["reason"]) for r in federation.rounds()] == [(None, reason)] * 2
        for site in federation.sites:
            assert not any(isinstance(m, EvaluationReport | MaskedHistograms) for m in said_by(site))


def test_the_best_version_is_chosen_by_the_pooled_counts(tmp_path: Path) -> None:
    evaluation = {"final_version": "best-validation"}
    with masked_federation(tmp_path, held_out=60, rounds=2, evaluation=evaluation) as federation:
        federation.propose()
        federation.rest()
        aucs = {v: summarise(plain_sum(federation, ALL, v, "validation")).auc or 0.0 for v in (1, 2)}
        with federation.services.reading() as session:
            study = stores.study(session, federation.study.digest)
        assert study.final_version == max(aucs, key=lambda version: aucs[version])


def test_masks_that_do_not_cancel_leave_the_version_unjudged(federation: MaskedFederation) -> None:
    federation.until_judging(1, "reveals")
    with federation.services.transaction() as session:
        masked = masking_round(session, federation.study.digest, 1, "evaluate")
        assert masked is not None
        first, second = masking_messages(session, masked, "vector")[:2]
        first.envelope = second.envelope
    federation.rest()
    assert federation.state()[0] == "completed"
    assert opened_on(federation, 1) is None
    assert federation.rounds()[1]["reason"].startswith("The masks do not cancel")
