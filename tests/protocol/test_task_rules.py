"""What studies of segmentation and regression must say, and what is refused with reason and remedy."""

from typing import Any

import pytest

from protocol.errors import SpecificationError
from protocol.study import StudySpec, parse_study


def study_of(kind: str, **parts: Any) -> StudySpec:
    own: dict[str, dict[str, Any]] = {
        "segmentation": {"label": {"classes": ["background", "liver", "tumour"]}, "network": {"name": "unet"}},
        "regression": {
            "label": {"column": "months"},
            "regression": {"low": 0, "high": 230, "unit": "months"},
            "network": {"name": "resnet"},
        },
        "classification": {"label": {"classes": ["no", "yes"]}, "network": {"name": "resnet"}},
    }
    return parse_study({"name": "s", "kind": kind, "rounds": 2, "privacy": {"epsilon": None}, **own[kind], **parts})


@pytest.mark.parametrize("kind", ["segmentation", "regression", "classification"])
def test_each_kind_is_legal_and_names_its_outcome(kind: str) -> None:
    study = study_of(kind)
    assert study.outcome == ("binary" if kind == "classification" else kind)
    assert study.is_judged_by_values == (kind != "classification")


@pytest.mark.parametrize("mechanism", ["dp-sgd", "site-level"])
@pytest.mark.parametrize("kind", ["segmentation", "regression"])
def test_each_kind_may_be_private(kind: str, mechanism: str) -> None:
    privacy = {"epsilon": 8.0, "delta": 1e-4, "mechanism": mechanism}
    if mechanism == "site-level":
        privacy["unit"] = "site"
    strategy = {"strategy": {"weighting": "equal"}} if mechanism == "site-level" else {}
    participants = {"training_patients": 100, **({"minimum_sites": 10} if strategy else {})}
    assert study_of(kind, privacy=privacy, participants=participants, **strategy).privacy.mechanism == mechanism


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("segmentation", {"label": {"classes": ["background"]}}, "name the background first"),
        ("segmentation", {"label": {"classes": ["no", "yes"], "several": True}}, "learnt by classification"),
        ("segmentation", {"regression": {"high": 2}}, "this study is of kind segmentation"),
        ("segmentation", {"cohort": {"single_class": "train"}}, "have no class"),
        ("regression", {"label": {"classes": ["no", "yes"]}}, "has no classes"),
        ("regression", {"regression": {"low": 3, "high": 3}}, "not below regression.high"),
        ("regression", {"segmentation": {"loss": "dice"}}, "this study is of kind regression"),
        ("regression", {"site_rates": {"adapt": "quality", "quality_epsilon": 1.0}}, "have no class"),
        ("regression", {"label": {"column": "months", "time_column": "days"}}, "learnt from tables only"),
        ("classification", {"label": {}}, "at least two classes"),
        ("classification", {"segmentation": {"loss": "dice"}}, "set kind: segmentation"),
        ("segmentation", {"table": {"features": [{"column": "age"}]}}, "'segmentation' is of images"),
    ],
)
def test_what_a_kind_cannot_have_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        study_of(kind, **changes)
