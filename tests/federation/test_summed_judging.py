"""Held-out counts under masks, however updates travel: masked, encrypted, or in clear in a study that says so."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.rounds.views import version_validation
from protocol.messages import EvaluationReport
from protocol.metrics import merge, summarise
from protocol.secure_aggregation.histograms import RING
from protocol.secure_messages import MaskedHistograms, MaskingKeys
from tests.federation.masked_federation import (
    ALL,
    LEFT_AFTER_LOSS,
    SPLITS,
    MaskedFederation,
    assert_pooled,
    masked_federation,
    opened_on,
    plain_sum,
    said_by,
)

STUDIES: dict[str, dict[str, Any]] = {
    "masked": {},
    "encrypted": {
        "secure_aggregation": {"method": "homomorphic", "maximum_sites": 5, "maximum_weight": 100, "value_bits": 8}
    },
    "in clear": {"secure_aggregation": {"method": "none"}, "evaluation": {"sum_under_masks": True}},
}


@pytest.fixture(params=sorted(STUDIES))
def federation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MaskedFederation]:
    with masked_federation(tmp_path, held_out=60, **STUDIES[request.param]) as opened:
        opened.propose()
        yield opened


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


@pytest.mark.parametrize(("phase", "survivors"), LEFT_AFTER_LOSS.items())
def test_a_site_lost_while_a_version_is_judged_leaves_the_others_sum(
    federation: MaskedFederation, phase: str, survivors: tuple[str, ...]
) -> None:
    federation.until_judging(1, phase)
    federation.lose("clara")
    federation.outlast()
    assert federation.state()[0] == "completed", federation.state()
    assert_pooled(federation, survivors, 1)


def test_below_the_threshold_the_version_stays_unjudged(federation: MaskedFederation) -> None:
    federation.until_judging(1, "uploads")
    federation.lose("bela", "clara")
    federation.outlast()
    assert federation.state()[0] == "completed", federation.state()
    assert opened_on(federation, 1) is None
    assert "4 are needed. Nothing was opened." in federation.rounds()[1]["reason"]


def test_a_site_whose_peers_are_not_pinned_says_nothing_of_its_held_out_patients(federation: MaskedFederation) -> None:
    federation.site("dora").pin([])
    federation.rest()
    federation.outlast()
    assert not any(isinstance(m, MaskedHistograms | EvaluationReport) for m in said_by(federation.site("dora")))


def test_counts_have_keys_of_their_own(federation: MaskedFederation) -> None:
    federation.rest()
    keys = [m for site in federation.sites for m in said_by(site) if isinstance(m, MaskingKeys)]
    assert {(m.round, m.task_kind) for m in keys} >= {(0, "evaluate"), (1, "evaluate")}
    assert len({key for m in keys for key in (m.channel_key, m.mask_key)}) == 2 * len(keys)
    for site in federation.sites:
        for row in site.gate._context.database.execute("SELECT * FROM masking"):
            assert (row["channel_key"], row["mask_key"], row["seed"], row["own_shares"]) == (None, None, None, None)
