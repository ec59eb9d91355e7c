"""Fewer values under masks and under encryption: the same places at every site, and a sum that is exact there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.compression.choice import chosen_number, seed_of, seeded_places
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.tensors import Vector
from tests.federation.masked_federation import ALL, BASE, PARAMETERS, MaskedFederation, masked_federation

FRACTION = 0.05
CHOSEN = chosen_number(PARAMETERS, FRACTION)
METHODS: dict[str, dict[str, Any]] = {
    "masking": {"method": "masking", "maximum_sites": 5, "maximum_weight": 100},
    "homomorphic": {"method": "homomorphic", "maximum_sites": 5, "maximum_weight": 100, "value_bits": 8},
}


def sparse(folder: Path, method: str, feedback: bool | None = None, rounds: int = 1) -> Any:
    transport = {"upload": [f"random-k:{FRACTION}"], "error_feedback": feedback}
    return masked_federation(folder, transport=transport, secure_aggregation=METHODS[method], rounds=rounds)


def expected(federation: MaskedFederation, number: int, before: Vector, factor: float) -> Vector:
    """Return the version that the plain sum of the sites' own integers makes, each in its place."""
    terms = federation.terms
    integers = [terms.ring.decode(terms.ring.from_bytes(site.handed[number].data)) for site in federation.sites]
    divisor = terms.divisor(sum(terms.weight_of(site.patients) for site in federation.sites))
    mean = np.zeros(PARAMETERS, np.float32)
    places = seeded_places(seed_of(federation.study.digest, number, "upload"), 0, PARAMETERS, CHOSEN)
    mean[places] = dequantise(np.sum(integers, axis=0), terms.unit, divisor) * np.float32(factor)
    return (before.astype(np.float64) + mean.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_the_version_is_the_plain_sum_in_the_round_s_places_and_moves_nowhere_else(tmp_path: Path, method: str) -> None:
    with sparse(tmp_path, method) as federation:
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        found = federation.weights(1)["w"]
        assert np.array_equal(found, expected(federation, 1, BASE["w"], PARAMETERS / CHOSEN))
        assert CHOSEN // 2 < np.count_nonzero(found != BASE["w"]) <= CHOSEN  # a sum may be zero at few levels
        assert all(len(site.handed[1].data) == 2 * CHOSEN for site in federation.sites)


def test_a_masked_vector_is_a_twentieth_as_long(tmp_path: Path) -> None:
    with sparse(tmp_path, "masking") as federation:
        federation.propose()
        federation.until("seen")
        sizes = [path.stat().st_size for path in (tmp_path / "hub" / "blobs").rglob("*") if path.is_file()]
        assert sizes.count(2 * (CHOSEN + 6)) == len(ALL)  # six words are the weight's


def test_what_a_round_left_out_comes_with_a_later_one(tmp_path: Path) -> None:
    with sparse(tmp_path, "masking", feedback=True, rounds=2) as federation:
        federation.propose()
        federation.rest()
        assert federation.state()[0] == "completed", federation.state()
        first, second = federation.weights(1)["w"], federation.weights(2)["w"]
        assert np.array_equal(first, expected(federation, 1, BASE["w"], 1.0))
        assert np.array_equal(second, expected(federation, 2, first, 1.0))
        site, terms = federation.sites[0], federation.terms
        places = seeded_places(seed_of(federation.study.digest, 2, "upload"), 0, PARAMETERS, CHOSEN)
        new = np.setdiff1d(places, seeded_places(seed_of(federation.study.digest, 1, "upload"), 0, PARAMETERS, CHOSEN))
        said = np.zeros(PARAMETERS)
        words = terms.ring.decode(terms.ring.from_bytes(site.handed[2].data))
        said[places] = words * terms.unit / terms.share_of(site.patients)
        both = sum(site.trained(number)["w"] - site.base["w"] for number in (1, 2))
        assert said[new] == pytest.approx(both[new], abs=terms.unit / terms.share_of(site.patients))
