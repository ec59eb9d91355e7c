"""The benchmark of protections: each setting is a legal study whose noise exists, at as many hospitals as it names."""

from pathlib import Path

import pytest

from compose.overrides import read_study
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_events
from tests.benchmarks.pneumonia import STUDY
from tests.benchmarks.protections import SETTINGS, hospitals_of

HOSPITALS = {"site-level-20": 20, "site-level-100": 100}


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_is_a_legal_study_within_epsilon_8(setting: str) -> None:
    number = HOSPITALS.get(setting, 5)
    study = read_study(STUDY, (*SETTINGS[setting], f"participants.minimum_sites={number}"))
    noise = noise_multiplier_of(study)
    assert noise is not None
    events = training_events(study, noise, study.maximum_training_tasks)
    assert 7.9 < epsilon_of(events, study.privacy.delta) <= 8.0


def test_the_hospitals_are_those_of_the_data_or_as_many_as_the_name_says(tmp_path: Path) -> None:
    for name in ("A", "B"):
        (tmp_path / "data" / name / "images").mkdir(parents=True)
        rows = [f"images/{name}{n}.dcm,{name}{n},train,0" for n in range(30)]
        (tmp_path / "data" / name / "labels.csv").write_text("\n".join(["file,patient_id,split,label", *rows]) + "\n")
    data = tmp_path / "data"
    assert [folder.name for folder in hospitals_of(data, "homomorphic", 0, tmp_path / "same")] == ["A", "B"]
    dealt = hospitals_of(data, "site-level-20", 0, tmp_path / "dealt")
    assert [len((folder / "labels.csv").read_text().splitlines()) - 1 for folder in dealt] == [3] * 20
