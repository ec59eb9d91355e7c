"""Versions that travel as differences: sites hold the same to the bit, and what coding loses comes with the next."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.aggregation.choosing import strategy_of
from hub.aggregation.differences import sent_as_difference
from hub.aggregation.strategy import DIFFERENCE, DIFFERENCE_BASE, ServerState
from hub.registry.blobs import BlobStore
from protocol.compression.differences import later_version
from protocol.study import StudySpec, parse_study
from tests.hub.aggregation.shelf import Shelf
from tests.hub.conftest import specification

VALUES = 400


def study_sending(*steps: str, **changes: Any) -> StudySpec:
    return parse_study(specification(transport={"download": list(steps)}, **changes))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(BlobStore(tmp_path / "blobs"))


def states(shelf: Shelf, study: StudySpec, rounds: int) -> list[ServerState]:
    """Return the states of so many rounds of one site, whose updates are chance."""
    chance, strategy = np.random.default_rng(4), strategy_of(study)
    found = [strategy.init(shelf.put(chance.normal(size=VALUES).astype(np.float32)))]
    for number in range(1, rounds + 1):
        update = shelf.updates(chance.normal(scale=0.1, size=(1, VALUES)).astype(np.float32))
        after = strategy.apply(found[-1], update, shelf.blobs)
        found.append(sent_as_difference(study, number, found[-1], after, shelf.blobs))
    return found


@pytest.mark.parametrize(
    ("steps", "strategy"),
    [
        (["quantise:8", "zstandard"], {"name": "fedavg"}),
        (["top-k:0.1", "quantise:4"], {"name": "fedavgm"}),
        (["random-k:0.2"], {"name": "fedadam", "learning_rate": 0.1}),
        (["half"], {"name": "fedavg"}),
    ],
)
def test_who_adds_the_differences_one_by_one_holds_what_the_hub_calls_sent(
    shelf: Shelf, steps: list[str], strategy: dict[str, Any]
) -> None:
    found = states(shelf, study_sending(*steps, strategy=strategy), 5)
    assert found[0].sent == found[0].weights
    for before, after in pairwise(found):
        assert after.blobs[DIFFERENCE_BASE] == before.sent
        file = b"".join(later_version(shelf.blobs.path(before.sent), shelf.blobs.path(after.blobs[DIFFERENCE])))
        assert file == shelf.blobs.read(after.sent)
        assert after.released == after.sent
        assert after.weights != after.sent


def test_what_one_difference_lost_comes_with_the_next(shelf: Shelf) -> None:
    """Each round half of the values are left out, and after forty no more is missing than two updates are long."""
    found = states(shelf, study_sending("top-k:0.5"), 40)
    lost = [float(np.linalg.norm(shelf.values(state.weights) - shelf.values(state.sent))) for state in found]
    one_update = 0.1 * np.sqrt(VALUES)
    assert max(lost) < 2 * one_update
    assert float(np.linalg.norm(shelf.values(found[-1].weights) - shelf.values(found[0].weights))) > 5 * one_update


def test_eight_bits_stay_within_half_a_level_of_the_hub_s_weights(shelf: Shelf) -> None:
    for before, after in pairwise(states(shelf, study_sending("quantise:8"), 6)):
        exact, held = shelf.values(after.weights), shelf.values(after.sent)
        level = float(np.abs(exact - shelf.values(before.sent)).max()) / 127
        assert float(np.abs(exact - held).max()) <= level / 2 + 1e-6


def test_the_same_round_computed_again_stores_the_same_blobs(shelf: Shelf) -> None:
    study = study_sending("quantise:8", "zstandard")
    assert states(shelf, study, 3) == states(shelf, study, 3)


def test_without_steps_the_version_is_the_strategy_s_own(shelf: Shelf) -> None:
    assert all(state.sent == state.weights and not state.blobs for state in states(shelf, study_sending(), 2))


def test_the_state_comes_back_from_the_lineage(shelf: Shelf) -> None:
    state = states(shelf, study_sending("half"), 1)[-1]
    assert ServerState.from_document(state.document()) == state
