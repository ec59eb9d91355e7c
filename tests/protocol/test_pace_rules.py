"""What a study may not ask of its pace, and what it may."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study

WEIGHTS = "sha256:" + "a" * 64
BUFFERED = {"mode": "buffered", "buffer": 2}
MASKED = {"method": "masking", "maximum_sites": 4, "maximum_weight": 100}
SITE_LEVEL: dict[str, Any] = {
    "participants": {"minimum_sites": 10, "training_patients": 4000},
    "privacy": {"unit": "site", "mechanism": "site-level", "epsilon": 8.0, "delta": 1e-5},
    "pace": BUFFERED,
}


def minimal(**changes: Any) -> dict[str, Any]:
    study: dict[str, Any] = {
        "name": "tiny",
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "densenet"},
        "rounds": 2,
        "privacy": {"epsilon": None},
    }
    return study | changes


def problems_of(**changes: Any) -> str:
    with pytest.raises(SpecificationError) as caught:
        parse_study(minimal(**changes))
    return str(caught.value)


def masked(**changes: Any) -> dict[str, Any]:
    terms: dict[str, Any] = {
        "participants": {"minimum_sites": 4},
        "secure_aggregation": MASKED,
        "transport": {"upload": []},
    }
    return terms | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pace": {"mode": "buffered"}}, "State how many updates make a version"),
        ({"pace": {"mode": "buffered", "buffer": 3}}, "2 sites (participants.minimum_sites) never fill a buffer of 3"),
        ({"pace": {"buffer": 2}}, "synchronous rounds have no buffer"),
        ({"pace": BUFFERED, "participants": {"late": "fold"}}, "participants.late: in buffered rounds"),
        ({"pace": BUFFERED, "participants": {"sampled": 0.5}}, "participants.sampled: in buffered rounds"),
        ({"pace": BUFFERED, "participants": {"deadline": "learned"}}, "participants.deadline: in buffered rounds"),
        (masked(pace=BUFFERED), "pace.mode: 'buffered' adds updates of different rounds, and masks"),
        (masked(participants={"minimum_sites": 4, "late": "fold"}), "participants.late: 'fold' adds updates of"),
        (SITE_LEVEL, "each round has its own length"),
        ({"pace": BUFFERED, "strategy": {"name": "scaffold"}}, "control variates of 'scaffold'"),
        (
            {"participants": {"minimum_sites": 4, "late": "fold"}, "strategy": {"name": "scaffold"}},
            "control variates of 'scaffold'",
        ),
        ({"evaluation": {"splits": ["test"], "patience": 2}}, "Add 'validation'"),
        ({"start": {"study": "chest", "version": 3}}, "hospitals approve the very weights"),
        ({"start": {"weights": WEIGHTS, "study": "chest"}}, "State both, or neither"),
        ({"start": {"weights": "latest"}}, "start.weights"),
    ],
)
def test_what_cannot_keep_its_promise_is_refused_with_reason_and_remedy(changes: dict[str, Any], words: str) -> None:
    assert words in problems_of(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"pace": BUFFERED},
        {"participants": {"late": "fold", "deadline": "learned", "sampled": 0.5}},
        {"start": {"weights": WEIGHTS}},
        {"start": {"weights": WEIGHTS, "study": "chest", "version": 3}},
        {"evaluation": {"patience": 2}},
        masked(participants={"minimum_sites": 4, "sampled": 0.5, "deadline": "learned"}),
    ],
)
def test_what_can_is_legal(changes: dict[str, Any]) -> None:
    assert parse_study(minimal(**changes)).rounds == 2


def test_nothing_of_it_is_asked_for_by_default() -> None:
    study: StudySpec = parse_study(minimal())
    assert (study.pace.mode, study.participants.late, study.participants.deadline) == ("synchronous", "refuse", "fixed")
    assert (study.participants.sampled, study.evaluation.patience, study.start.weights) == (1.0, None, None)
