"""The studies of docs/segmentation.md are legal, what the page says of them, and their networks can be built."""

import re
from pathlib import Path

import yaml

from protocol.study import parse_study
from protocol.value_histograms import NOISED_VALUE_BINS, VALUE_BINS
from site_node.training.networks import build_network
from tests.benchmarks.segmentation import TASKS
from tests.benchmarks.segmentation_data import only
from tests.benchmarks.segmentation_privacy import TERMS, WITHOUT, private
from tests.benchmarks.segmentation_tables import table_of, with_tables

PAGE = Path(__file__).parents[2] / "docs" / "segmentation.md"


def test_the_examples_are_legal_and_their_networks_are_there() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    masks, months = (parse_study(yaml.safe_load(example)) for example in examples)
    assert (masks.outcome, masks.privacy.epsilon) == ("segmentation", 8)
    assert (months.outcome, months.regression.unit) == ("regression", "months")
    for study in (masks, months):
        assert sum(parameter.numel() for parameter in build_network(study).parameters()) > 0


def test_the_page_says_how_many_steps_the_range_has() -> None:
    words = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"of {VALUE_BINS} equal steps" in words
    assert f"there are {NOISED_VALUE_BINS} steps" in words


def test_every_measured_task_has_its_table_in_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    models = {"together": {"a": 0.5, "all": 0.5}, "pooled": {"a": 0.51, "all": 0.51}, "a": {"a": None, "all": 0.4}}
    result = {"metric": "Dice", "steps": 500, "seeds": 1, "models": models}
    assert with_tables(page, dict.fromkeys(TASKS, result)).count(table_of(result)) == len(TASKS)


def test_a_table_has_a_line_for_each_model_and_says_where_nothing_is_known() -> None:
    models = {"pooled": {"cs": 0.512, "all": 0.5}, "cs": {"cs": None, "all": 0.4}}
    of_each_seed = {"together": [0.45, 0.55], "pooled": [0.4, 0.6]}
    table = table_of({"metric": "Dice", "steps": 500, "seeds": 2, "models": models, "of_each_seed": of_each_seed})
    assert table.splitlines() == [
        "Dice, 500 steps, mean of 2 seeds (alone: the first):",
        "",
        "| trained by | CS | all held-out patients |",
        "| --- | ---: | ---: |",
        "| all patients in one place | 0.512 | 0.500 |",
        "| CS alone | - | 0.400 |",
        "",
        "The seeds one by one: together 0.450, 0.550; in one place 0.400, 0.600.",
    ]


def test_whom_settings_are_chosen_by_and_who_is_shown_are_other_patients(tmp_path: Path) -> None:
    folder = tmp_path / "hospital"
    folder.mkdir()
    rows = ["patient_id,sop_instance_uid,split", "a,1,train", "b,2,validation", "c,3,test"]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    shown = (only(folder, tmp_path / split, {split}) / "labels.csv" for split in ("validation", "test"))
    assert [path.read_text(encoding="utf-8").split()[1:] for path in shown] == [["b,2,validation"], ["c,3,test"]]


def test_the_study_with_privacy_is_the_one_without_it_but_for_noise_and_masks() -> None:
    name = {"name": "compared"}
    noised, plain = parse_study({**name, **TERMS, **private(8.0)}), parse_study({**name, **TERMS, **WITHOUT})
    same = {"privacy": noised.privacy, "secure_aggregation": noised.secure_aggregation}
    assert plain.model_copy(update=same) == noised
    assert plain.privacy.clip_norm == noised.privacy.clip_norm
