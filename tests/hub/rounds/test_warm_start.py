"""A study may start from a version of another: no site builds version 0, and the lineage names its parent."""

from typing import Any

import numpy as np
import pytest

from hub.errors import RequestError
from hub.registry.lineage import read_lineage
from hub.storage import stores
from hub.studies import coordinator as studies
from protocol.messages import TaskKind
from tests.hub.rounds.bench import Bench, filled, study_of


@pytest.fixture
def weights(bench: Bench) -> str:
    """The digest of version 1 of a finished study, whose every value is 2."""
    bench.begin(study_of(name="earlier", rounds=1))
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(2.0))
    bench.close()
    bench.report_all()
    with bench.services.reading() as session:
        return stores.version(session, bench.study.digest, 1).weights_digest


def starting_from(weights: str, **changes: Any) -> Any:
    return study_of(name="later", start={"weights": weights, **changes.pop("start", {})}, **changes)


def test_version_0_is_the_named_version_and_is_judged_as_such(bench: Bench, weights: str) -> None:
    bench.start(starting_from(weights, start={"study": "earlier", "version": 1}))
    assert bench.tasks(TaskKind.INITIALISE) == []
    judged = bench.tasks(TaskKind.EVALUATE)
    assert {task.base.weights_digest for task in judged if task.base} == {weights}
    bench.report_all()
    assert {(t.round, t.base.number, t.base.weights_digest) for t in bench.tasks(TaskKind.TRAIN) if t.base} == {
        (1, 0, weights)
    }
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(0.5))
    bench.close()
    np.testing.assert_array_equal(bench.weights(1)["bias"], [2.5, 2.5])


def test_the_lineage_names_the_parent_and_no_participant(bench: Bench, weights: str) -> None:
    bench.start(starting_from(weights))
    with bench.services.reading() as session:
        lineage = read_lineage(stores.version(session, bench.study.digest, 0).lineage)
    assert (lineage["weights_digest"], lineage["parents"], lineage["participants"]) == (weights, [weights], [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": {"study": "earlier", "version": 0}}, "not the digest of the version"),
        ({"start": {"study": "unheard-of", "version": 1}}, "not the digest of the version"),
        ({"network": {"name": "resnet"}}, "of another network"),
        ({"preprocessing": {"size": [32, 32]}}, "of another network"),
    ],
)
def test_weights_that_cannot_be_these_are_refused_before_anybody_is_asked(
    bench: Bench, weights: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        studies.propose(bench.services, starting_from(weights, **changes), [], "researcher")


def test_weights_that_the_hub_does_not_have_are_refused(bench: Bench) -> None:
    with pytest.raises(RequestError, match="No version at this hub"):
        studies.propose(bench.services, starting_from("sha256:" + "7" * 64), [], "researcher")
