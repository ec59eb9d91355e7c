from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.preprocessing import PRESETS, Preprocessing
from protocol.study import parse_study
from tests.protocol.test_study import minimal

THREE = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("label", "outcome"),
    [
        ({"classes": ["no", "yes"]}, "binary"),
        ({"classes": THREE}, "multi-class"),
        ({"classes": THREE, "several": True}, "multi-label"),
        ({"classes": ["no", "yes"], "several": True}, "multi-label"),
    ],
)
def test_the_outcome_follows_from_the_classes(label: dict[str, Any], outcome: str) -> None:
    assert parse_study(minimal(label=label)).outcome == outcome


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": {"classes": ["a", "A "]}}, "stands twice"),
        ({"label": {"classes": THREE, "weights": [1.0, 2.0]}}, "2 weights for 3 classes"),
        ({"label": {"classes": THREE, "separator": "|"}}, "set label.several"),
        ({"label": {"classes": ["a|b", "c"], "several": True, "separator": "|"}}, "within a class's name"),
        ({"label": {"classes": ["split", "c"], "several": True}}, "Rename the finding"),
        ({"label": {"classes": THREE}, "site_rates": {"adapt": "quality", "quality_epsilon": 1.0}}, "two classes"),
        ({"preprocessing": {"intensity": "window"}}, "its two ends"),
        ({"preprocessing": {"intensity": "window", "window": [40, -160]}}, "the lower first"),
        ({"preprocessing": {"window": [0, 1]}}, "scaled by itself"),
    ],
)
def test_what_would_do_nothing_or_mean_two_things_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        parse_study(minimal(**changes))
    assert any(words in sentence for sentence in caught.value.problems)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_puts_its_values_into_the_study_that_hospitals_approve(preset: str) -> None:
    study = parse_study(minimal(preprocessing={"preset": preset}))
    stated = study.model_dump(mode="json")["preprocessing"]
    assert {key: stated[key] for key in PRESETS[preset]} == dict(PRESETS[preset])  # type: ignore[index]
    assert parse_study(study.model_dump(mode="json", by_alias=True)).digest == study.digest


def test_what_a_study_states_itself_stands_above_its_preset() -> None:
    terms = Preprocessing.model_validate({"preset": "ct-lung", "size": [64, 64], "mirror": True})
    assert (terms.size, terms.mirror, terms.window) == ([64, 64], True, [-1350, 150])


def test_chest_radiographs_are_not_mirrored() -> None:
    assert not Preprocessing.model_validate({"preset": "chest-xray"}).mirror
