import math

import numpy as np
import pytest

from protocol.privacy_terms import Privacy
from protocol.site_level import site_noise, update_deviation
from protocol.tensors import Weights, norm_of
from site_node.privacy.noise import SecureStream
from site_node.privacy.site_level import release_update

PRIVACY = Privacy(unit="site", mechanism="site-level", epsilon=8.0)
FIXED = PRIVACY.model_copy(update={"update_norm_rate": 0.0})
HARDLY = 1e-5


def stream(name: bytes = b"s") -> SecureStream:
    return SecureStream(name * 32)


def update_of(norm: float, values: int = 300) -> Weights:
    flat = np.random.default_rng(1).normal(size=values)
    flat *= norm / np.linalg.norm(flat)
    return {"a": flat[:100].astype(np.float32), "b": flat[100:].reshape(-1, 2).astype(np.float32)}


def test_an_update_within_the_length_is_left_as_it_is_and_a_longer_one_cut_to_it() -> None:
    short = release_update(update_of(0.5), PRIVACY, HARDLY, 1.0, stream())
    assert norm_of({key: short.update[key] - update_of(0.5)[key] for key in short.update}) < 1e-3
    long = release_update(update_of(7.0), PRIVACY, HARDLY, 1.0, stream())
    assert norm_of({key: long.update[key] - update_of(1.0)[key] for key in long.update}) < 1e-3


def test_the_bit_says_whether_it_was_cut() -> None:
    uncut, cut = (release_update(update_of(norm), PRIVACY, HARDLY, 1.0, stream()).uncut for norm in (0.99, 1.01))
    assert uncut == pytest.approx(1.0, abs=1e-3)
    assert cut == pytest.approx(0.0, abs=1e-3)
    assert release_update(update_of(0.9), FIXED, HARDLY, 1.0, stream()).uncut is None


def test_the_noise_has_the_stated_deviations() -> None:
    released = [release_update(update_of(1.0), PRIVACY, 3.0, 0.5, stream(bytes([k]))) for k in range(40)]
    residuals = np.concatenate([r.update["a"] - update_of(0.5)["a"] for r in released])
    assert np.std(residuals) == pytest.approx(update_deviation(PRIVACY, 3.0, 0.5), rel=0.05)
    bit = site_noise(PRIVACY, 3.0).bit
    assert bit is not None
    assert np.std([r.uncut for r in released if r.uncut is not None]) == pytest.approx(bit, rel=0.4)


def test_two_updates_of_any_size_differ_by_at_most_twice_the_length_before_the_noise() -> None:
    # Equal streams add equal noise, so the difference of two releases is that of what was noised.
    one = release_update(update_of(50.0), FIXED, 2.0, 0.3, stream())
    other = release_update({k: -v for k, v in update_of(0.4).items()}, FIXED, 2.0, 0.3, stream())
    assert norm_of({key: one.update[key] - other.update[key] for key in one.update}) <= 0.6 * (1 + 1e-6)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_counts_as_none(poison: float) -> None:
    broken = update_of(1.0)
    broken["a"][3] = poison
    released = release_update(broken, PRIVACY, 1.0, 0.5, stream())
    nothing = release_update({k: np.zeros_like(v) for k, v in broken.items()}, PRIVACY, 1.0, 0.5, stream())
    assert all(np.array_equal(released.update[key], nothing.update[key]) for key in broken)
    assert released.uncut == nothing.uncut
