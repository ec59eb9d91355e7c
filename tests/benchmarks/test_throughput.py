"""The benchmark of images a second compares the same tensors, and says what it took turns in."""

import warnings

import pytest

from tests.benchmarks.throughput import measured


@pytest.mark.parametrize("intensity", ["percentile", "minmax"])
def test_both_loaders_make_the_same_tensors(intensity: str) -> None:
    with warnings.catch_warnings():
        found = measured(5, 64, 16, 1, intensity)
    assert found["farthest"] < 0.02
    assert set(found["images_a_second"]) == {"ours_first", "ours_later", "monai", "monai_cached"}
    assert all(rate > 0 for rate in found["images_a_second"].values())
