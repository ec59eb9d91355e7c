"""Held-out counts under masks in whole federations: one sum is opened, no hospital's own, and judging fails nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub.registry.lineage import read_lineage
from hub.storage import stores
from hub.storage.masking_stores import masking_messages, masking_round
from protocol.messages import EvaluationReport
from protocol.metrics import geometric_variance, summarise
from protocol.secure_messages import MaskedHistograms, MaskingKeys
from tests.federation.masked_federation import (
    ALL,
    HOUR,
    PHASE_IS_OVER,
    MaskedFederation,
    assert_pooled,
    masked_federation,
    opened_on,
    plain_sum,
    said_by,
)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path, held_out=60) as opened:
        opened.propose()
        yield opened


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


@pytest.mark.parametrize("phase", ["keys", "shares", "uploads", "seen", "reveals"])
def test_below_the_threshold_the_version_stays_unjudged_and_the_study_goes_on(tmp_path: Path, phase: str) -> None:
    with masked_federation(tmp_path, held_out=60, rounds=2) as federation:
        federation.propose()
        federation.until_judging(1, phase)
        federation.lose("bela", "clara")
        federation.pass_time(2 * HOUR if phase == "uploads" else PHASE_IS_OVER)
        first = federation.rounds()[1]
        assert (first["state"], first["metrics"]) == ("complete", None)
        assert "4 are needed. Nothing was opened. The version stays unjudged." in first["reason"]
        assert opened_on(federation, 1) is None
        federation.find_again("bela", "clara")
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
        federation.lose("dora")
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


CROWD_OF_SIX: dict[str, Any] = {"participants": {"minimum_sites": 8, "quorum": 0.1}}
"""Terms of a study of eight hospitals, of which six make a crowd."""


def test_counts_of_fewer_judges_than_the_crowd_that_was_approved_are_not_asked_for(tmp_path: Path) -> None:
    with masked_federation(tmp_path, 8, held_out=60, **CROWD_OF_SIX) as federation:
        for name in ("bela", "clara", "dora"):
            federation.site(name).held_out = 0
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        reason = "5 sites hold patients out; a sum under masks needs 6. The version stays unjudged."
        assert [(r["metrics"], r["reason"]) for r in federation.rounds()] == [(None, reason)] * 2


@pytest.mark.parametrize("phase", ["keys", "shares", "uploads"])
def test_counts_of_a_crowd_that_was_not_approved_are_not_opened(tmp_path: Path, phase: str) -> None:
    with masked_federation(tmp_path, 8, held_out=60, **CROWD_OF_SIX) as federation:
        for name in ("gita", "hugo"):
            federation.site(name).held_out = 0
        federation.propose()
        federation.until_judging(1, phase)
        federation.lose("bela")  # five of the six judges could open their sum
        federation.outlast()
        assert federation.state()[0] == "completed", federation.state()
        assert opened_on(federation, 1) is None
        assert "6 are needed. Nothing was opened. The version stays unjudged." in federation.rounds()[1]["reason"]


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
