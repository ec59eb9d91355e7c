from pathlib import Path

import pytest

from compose.errors import ComposeError
from compose.overrides import read_study, with_setting
from protocol.errors import SpecificationError

STUDY = """
name: tiny
label: {classes: ["no", "yes"]}
network: {name: convnet}
rounds: 2
participants: {training_patients: 334}
privacy: {epsilon: 8, delta: 1.0e-4}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_settings_override_the_file_in_their_order(study: Path) -> None:
    spec = read_study(study, ["privacy.epsilon=3", "training.local_steps=7", "privacy.epsilon=2"])
    assert spec.privacy.epsilon == 2
    assert spec.training.local_steps == 7


def test_null_turns_a_value_off(study: Path) -> None:
    assert read_study(study, ["privacy.epsilon=null"]).privacy.epsilon is None


def test_a_setting_does_not_change_its_data() -> None:
    data = {"a": {"b": 1}}
    assert with_setting(data, "a.c=[1, x]") == {"a": {"b": 1, "c": [1, "x"]}}
    assert data == {"a": {"b": 1}}


@pytest.mark.parametrize("setting", ["epsilon", "=3", "a..b=1", "name.x=1", "a=[1"])
def test_a_setting_that_is_none_is_refused(study: Path, setting: str) -> None:
    with pytest.raises(ComposeError):
        read_study(study, [setting])


def test_an_unknown_key_is_named(study: Path) -> None:
    with pytest.raises(SpecificationError, match=r"privacy.epsilom: unknown key"):
        read_study(study, ["privacy.epsilom=3"])


@pytest.mark.parametrize("text", ["name: [", "\xff", "- 1", ""])
def test_a_file_that_is_no_study_is_refused(study: Path, text: str) -> None:
    study.write_text(text, encoding="latin-1")
    with pytest.raises((ComposeError, SpecificationError)):
        read_study(study)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match=r"none.yaml cannot be read"):
        read_study(tmp_path / "none.yaml")
