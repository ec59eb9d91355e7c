"""The benchmark of strategies: its terms, its figures and its picture, on numbers made up here."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks.strategies import inverted, measured, settings_of
from tests.benchmarks.strategies_plot import BOTTOM, HEIGHT, WIDTH, Axes, draw, mean_curve, spread_apart


@pytest.mark.parametrize(
    ("variant", "name", "keys"),
    [
        (
            "join=median,weighting=equal",
            "join=median,weighting=equal",
            ["strategy.join=median", "strategy.weighting=equal"],
        ),
        ("FedProx 0.1:training.proximal=0.1", "FedProx 0.1", ["training.proximal=0.1"]),
        ("FedAdam:name=fedadam,training.momentum=0", "FedAdam", ["strategy.name=fedadam", "training.momentum=0"]),
    ],
)
def test_a_variant_names_keys_of_the_strategy_or_of_any_part(variant: str, name: str, keys: list[str]) -> None:
    assert settings_of(variant) == (name, keys)


def test_what_is_printed_is_of_the_last_version() -> None:
    row = measured("FedAvg:name=fedavg", [[0.5, 0.9], [0.7, 0.8]], whole=True)
    assert (row["auc"], row["aucs"], row["curves"]) == (0.85, [0.9, 0.8], [[0.5, 0.9], [0.7, 0.8]])
    assert "curves" not in measured("FedAvg:name=fedavg", [[0.9]], whole=False)


def test_the_mean_curve_is_of_the_versions_that_every_seed_has() -> None:
    assert mean_curve([[0.5, 1.0], [1.0, 1.0, 1.0]]) == [0.75, 1.0]


def test_a_better_model_lies_higher_and_a_later_one_further_right() -> None:
    axes = Axes(8, [0.945, 0.99])
    assert axes.y(0.99) < axes.y(0.97) < axes.y(0.945)
    assert axes.x(1) < axes.x(8)
    # what is left halves twice: the same height each time
    assert axes.y(0.96) - axes.y(0.98) == pytest.approx(axes.y(0.98) - axes.y(0.99))
    assert Axes(8, [0.5, 0.99]).y(0.5) == Axes(8, [0.5, 0.99]).y(0.6) == HEIGHT - BOTTOM


def test_names_that_would_cover_each_other_are_moved_apart() -> None:
    assert spread_apart([10.0, 11.0, 5.0], room=4) == [10.0, 14.0, 5.0]


def test_the_figure_shows_every_curve(tmp_path: Path) -> None:
    rows = [measured(f"{name}:name=fedavg", [[0.9, last]], whole=True) for name, last in (("a", 0.95), ("b", 1.0))]
    draw(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or ()}
    assert {(31, 119, 180), (214, 120, 20)} <= colours


def test_wrong_labels_are_those_of_training_patients_alone(tmp_path: Path) -> None:
    hospital = tmp_path / "A"
    (hospital / "images").mkdir(parents=True)
    (hospital / "labels.csv").write_text("patient_id,label,split\np,1,train\nq,0,train\nr,1,validation\n")
    with (inverted(hospital, tmp_path / "wrong") / "labels.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["0", "1", "1"]
