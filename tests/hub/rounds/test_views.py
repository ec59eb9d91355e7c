"""What is shown of counts: nobody finds one hospital's small count by subtraction."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from hub.rounds.metric_views import COUNTS, SMALLEST_SHOWN_COUNT, metrics_view
from protocol.messages import EvaluationReport, ModelReference
from protocol.metrics import ScoreHistograms
from protocol.study_parts import HeldOutSplit

pytestmark = pytest.mark.both_databases

DIGEST = "sha256:" + "0" * 64
SIZES = ((6, 7), (2, 13), (1, 2))


def report(site: str, **splits: tuple[int, int]) -> EvaluationReport:
    """Return a site's report with so many positives and negatives in each split."""
    histograms: dict[HeldOutSplit, ScoreHistograms] = {}
    names: tuple[HeldOutSplit, ...] = ("validation", "test")
    for name in names:
        if name in splits:
            positives, negatives = splits[name]
            labels = np.array([1] * positives + [0] * negatives, dtype=np.int64)
            histograms[name] = ScoreHistograms.from_scores(np.where(labels == 1, 0.7, 0.3).astype(np.float64), labels)
    return EvaluationReport(
        site=site, task_id="t", task_digest=DIGEST, study_digest=DIGEST, histograms=histograms, noise_epsilon=None,
        version=ModelReference(number=1, weights_digest=DIGEST, weights_bytes=1, manifest_digest=DIGEST),
    )  # fmt: skip


def view(*reports: EvaluationReport) -> dict[str, Any]:
    found = metrics_view(reports)
    assert found is not None
    return found


def test_a_pooled_count_is_hidden_where_one_sites_alone_is() -> None:
    north, south = report("north", test=(6, 7)), report("south", test=(1, 2))
    assert (view(north)["patients"], view(south)["patients"]) == (13, None)
    pooled = view(north, south)
    hidden = ("patients", "positives", "sensitivity", "specificity", "accuracy")
    assert [pooled[name] for name in hidden] == [None] * 5
    assert [pooled["by_split"]["test"][name] for name in hidden] == [None] * 5
    assert pooled["auc"] == pytest.approx(1.0)


def test_a_pooled_count_is_shown_where_none_or_several_are_hidden() -> None:
    assert view(report("a", test=(6, 7)), report("b", test=(8, 9)))["patients"] == 30
    tiny = [report(name, test=(1, 2)) for name in ("b", "c")]
    assert view(report("a", test=(6, 7)), *tiny)["patients"] == 19


@pytest.mark.parametrize("count", COUNTS)
def test_pooled_minus_shown_never_leaves_one_hidden_site(count: str) -> None:
    sizes = [{"validation": SIZES[0], "test": size} for size in SIZES] + [{"test": SIZES[2]}]
    for of_a, of_b, of_c in product(sizes, sizes, sizes[2:]):
        reports = [report("a", **of_a), report("b", **of_b), report("c", **of_c)]
        pooled, alone = view(*reports), [view(one) for one in reports]
        parts = [(pooled, alone)]
        for split, figures in pooled["by_split"].items():
            parts.append((figures, [one["by_split"][split] for one in alone if split in one["by_split"]]))
        for together, sites in parts:
            assert together[count] is None or sum(one[count] is None for one in sites) != 1
        splits = [figures[count] for figures in pooled["by_split"].values()]
        assert pooled[count] is not None or None in splits  # the splits' sum would tell it
        assert all(shown is None or shown >= SMALLEST_SHOWN_COUNT for shown in (pooled[count], *splits))
