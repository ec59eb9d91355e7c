"""The study of docs/bundles.md is legal, and its table names every step that a study can have and no other."""

import re
from pathlib import Path
from typing import get_args

import yaml

from protocol.preprocessing_steps import Step
from protocol.study import parse_study
from site_node.bundles.monai_steps import PASSED_OVER, STEPS
from site_node.training.networks import build_network

PAGE = Path(__file__).parents[2] / "docs" / "bundles.md"


def test_the_example_is_legal_and_its_network_is_there() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    study = parse_study(yaml.safe_load(example))
    assert [step.transform for step in study.preprocessing.steps][:2] == ["Orientation", "Spacing"]
    assert sum(parameter.numel() for parameter in build_network(study).parameters()) > 0


def test_the_table_names_what_is_taken_in_and_what_is_passed_over() -> None:
    passed, placing, scaling = (
        line.split("|")[1]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| LoadImage", "| Orientation", "| ScaleIntensity"))
    )
    assert set(re.findall(r"[A-Z][A-Za-z]+[a-z]", passed)) - {"DICOM"} == set(PASSED_OVER)
    assert set(re.findall(r"[A-Z][A-Za-z]+[a-z]", placing + scaling)) == set(STEPS)


def test_every_step_of_a_study_has_a_transform_of_bundles() -> None:
    union, _ = get_args(Step)
    assert {part.__name__ for part in get_args(union)} == set(STEPS)
