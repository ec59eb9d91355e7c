"""The arithmetic of the frugal benchmark and its picture, on figures made up here."""

from pathlib import Path

import pytest
from PIL import Image

from protocol.compression.steps import parse_steps
from tests.benchmarks.frugal import CODECS, FLOAT32, row_of
from tests.benchmarks.frugal_plot import HEIGHT, WIDTH, draw


def entries(*aucs: float, payload: float, wire: float) -> list[dict[str, float]]:
    return [{"auc": auc, "payload": payload, "wire": wire} for auc in aucs]


def test_loss_and_ratios_are_of_the_means() -> None:
    row = row_of("sparse", entries(0.98, 0.99, 0.991, payload=200, wire=400), size=20_000, auc=0.99)
    assert (row["auc"], row["loss"], row["payload_smaller"], row["wire_smaller"]) == (0.987, 0.003, 100, 50)
    assert row["met"]


@pytest.mark.parametrize(("auc", "payload"), [(0.984, 200.0), (0.99, 500.0)])
def test_too_much_lost_or_too_little_saved_misses_the_aim(auc: float, payload: float) -> None:
    assert not row_of("sparse", entries(auc, payload=payload, wire=1), size=20_000, auc=0.99)["met"]


def test_every_list_of_steps_is_one_that_a_study_may_name() -> None:
    assert not CODECS[FLOAT32]["upload"]
    assert all(parse_steps(codec["upload"]).is_coded for name, codec in CODECS.items() if name != FLOAT32)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    rows = [
        row_of(name, entries(auc, auc - 0.001, payload=payload, wire=payload), 20_000, 0.99)
        for name, auc, payload in ((FLOAT32, 0.99, 20_000), ("sparse", 0.98, 150))
    ]
    draw(rows, tmp_path / "curve.png", smaller=50, loss=0.005)
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert len(picture.getcolors(1 << 16) or []) > 10
