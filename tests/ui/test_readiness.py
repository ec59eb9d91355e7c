"""The words in which a hospital's readiness is shown."""

from dataclasses import replace

import pytest

from ui.readiness import Readiness, readiness_facts

TOLD = Readiness(
    number=1,
    policy="allows",
    tasks="taken",
    train_hours=168,
    labels="not-told",
    class_names="not-told",
    decoders="all",
    device="gpu",
    disk="suffices",
    memory="suffices",
    minutes_a_round=5,
    stand_ins=1,
)


def test_a_machine_that_suffices_is_said_in_few_words() -> None:
    shown = readiness_facts(TOLD)
    assert "at most 5 min, with 1 stand-in for patients" in shown
    assert "<dd>GPU</dd>" in shown
    assert "at any hour" in shown
    assert "labels" not in shown
    assert "policy" not in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"disk": "too-small", "memory": "too-small", "device": "cpu"}, "no GPU, too little disk and memory"),
        ({"decoders": "some-missing", "device": "unseen"}, "<dd>some image formats cannot be read</dd>"),
        ({"minutes_a_round": "longer"}, "more than a day"),
        ({"minutes_a_round": "not-measured"}, "<dd>not measured</dd>"),
        ({"tasks": "draining"}, "takes no new tasks at present"),
        ({"policy": "objects"}, "objects to the study"),
        ({"labels": "in-reports"}, "structured reports"),
        ({"class_names": "some"}, "only some classes"),
    ],
)
def test_what_is_amiss_is_said(changes: dict[str, object], words: str) -> None:
    assert words in readiness_facts(replace(TOLD, **changes))  # type: ignore[arg-type]
