"""The benchmark of homomorphic encryption, small: what it claims to measure is what happens."""

from pathlib import Path

import pytest

from tests.benchmarks.homomorphic import measure


@pytest.mark.parametrize(("sites", "bits", "fields"), [(8, 8, 5), (32, 8, 4), (5, 16, 3)])
def test_sums_are_exact_and_uploads_below_one_and_a_half_times_float32(
    tmp_path: Path, sites: int, bits: int, fields: int
) -> None:
    found = measure(sites, 90_000, bits, tmp_path)
    assert found["exact"] is True
    assert found["fields"] == fields
    assert found["upload_ratio"] < 1.5
