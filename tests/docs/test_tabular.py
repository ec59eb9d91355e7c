"""The studies of docs/tabular.md are legal, and are what the page says of them."""

import re
from pathlib import Path

import yaml

from protocol.study import parse_study

PAGE = Path(__file__).parents[2] / "docs" / "tabular.md"


def test_the_examples_of_tabular_studies_are_legal() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    binary, survival = (parse_study(yaml.safe_load(example)) for example in examples)
    assert (binary.kind, binary.is_survival, binary.privacy.epsilon) == ("tabular", False, 8)
    assert [feature.column for feature in binary.table.features] == ["age", "cholesterol", "chest_pain"]
    assert survival.is_survival
