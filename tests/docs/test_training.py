"""docs/training.md: its studies are legal, and its table of presets is the code's."""

import re
from pathlib import Path
from typing import get_args

import yaml

from protocol.outcome import Outcome
from protocol.preprocessing import PRESETS
from protocol.study import parse_study

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_studies_of_the_page_are_legal() -> None:
    written = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    several, findings = (parse_study(yaml.safe_load(text)) for text in written)
    assert (several.outcome, findings.outcome) == ("multi-class", "multi-label")
    assert {several.outcome, findings.outcome} < set(get_args(Outcome))
    assert findings.preprocessing.size == PRESETS["chest-xray"]["size"]


def test_each_preset_stands_there_with_its_values() -> None:
    for name, values in PRESETS.items():
        if name == "none":
            continue
        (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{name}` |"))
        assert " x ".join(map(str, values["size"])) in line
        assert values["augmentation"] in line
        assert ("| yes" in line) == values["mirror"]
        if "window" in values:
            assert "{} to {} HU".format(*values["window"]) in line
