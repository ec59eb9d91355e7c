import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from site_node.privacy.noise import (
    CIPHER_BYTES,
    GRID_BITS,
    NoiseSource,
    SecureStream,
    add_gaussian_noise,
    clipping_reserve,
    grid_step,
)
from tests.site_node.training.examples import make_noise

MANY = 200_000
LIKELY = 1e-3
"""Seeds are fixed: a test of chance that passes once passes always."""


def test_normals_are_standard_normal() -> None:
    normals = make_noise().gradients.normals(MANY)
    assert stats.kstest(normals, "norm").pvalue > LIKELY
    assert stats.kstest(normals[: MANY // 2] * normals[MANY // 2 :], _product_cdf).pvalue > LIKELY  # pairs independent


def test_the_noise_on_a_sum_has_the_stated_deviation() -> None:
    deviation = 3.7
    noised = add_gaussian_noise(np.full(MANY, 0.123), deviation, make_noise().gradients)
    assert stats.kstest((noised - 0.123) / deviation, "norm").pvalue > LIKELY


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 40))
def test_a_source_goes_on_from_any_place_as_one_that_was_there(drawn: list[int], further: int) -> None:
    whole, again = make_noise(), make_noise()
    for count in drawn:
        whole.sampling.words(count)
        whole.gradients.normals(count)
    again.gradients.words(3)  # a place that is not the other's
    again.move_to(whole.positions())
    np.testing.assert_array_equal(again.gradients.words(further), whole.gradients.words(further))
    np.testing.assert_array_equal(again.sampling.words(further), whole.sampling.words(further))
    assert again.positions() == whole.positions()


def test_a_stream_goes_on_past_the_blocks_that_one_cipher_numbers() -> None:
    before, after = SecureStream(b"k" * 32), SecureStream(b"k" * 32)
    before.move_to(CIPHER_BYTES - 16)
    across = before.words(6)
    after.move_to(CIPHER_BYTES)
    np.testing.assert_array_equal(across[2:], after.words(4))
    assert before.position == after.position == CIPHER_BYTES + 32
    assert not np.array_equal(across[2:], SecureStream(b"k" * 32).words(4))  # it does not begin again


def test_positions_of_no_stream_of_ours_are_refused() -> None:
    for positions in ({"weather": 8}, {"sampling": -8}):
        with pytest.raises(ValueError, match="positions"):
            make_noise().move_to(positions)


def test_uniforms_are_uniform_and_never_zero() -> None:
    uniforms = make_noise().sampling.uniforms(MANY)
    assert stats.kstest(uniforms, "uniform").pvalue > LIKELY
    assert uniforms.min() > 0
    assert uniforms.max() <= 1


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_integer_noise_follows_the_two_sided_geometric_law(scale: float) -> None:
    noise = make_noise().histograms.two_sided_geometric(MANY, scale)
    ratio = np.exp(-1 / scale)
    values = np.arange(-3, 4)
    expected = (1 - ratio) / (1 + ratio) * ratio ** np.abs(values)
    inside, outside = np.array([(noise == value).sum() for value in values]), 1 - expected.sum()
    counts = np.append(inside, MANY - inside.sum())
    assert stats.chisquare(counts, np.append(expected, outside) * MANY).pvalue > LIKELY


@pytest.mark.parametrize("deviation", [1e-3, 0.7, 1.0, 123.0])
def test_every_noised_value_lies_on_the_grid(deviation: float) -> None:
    sums = np.random.default_rng(0).normal(size=1000)
    noised = add_gaussian_noise(sums, deviation, make_noise().gradients)
    steps = noised / grid_step(deviation)
    assert np.array_equal(steps, np.rint(steps))
    assert grid_step(deviation) <= deviation * 2.0**-GRID_BITS


def test_neighbouring_sums_can_give_the_same_outputs() -> None:
    # The floating-point attack: with x + noise in floats, some results are possible for one x only. On the grid the
    # noise is the same for both sums, so that results differ by whole steps.
    one, other = (add_gaussian_noise(np.full(500, x), 1.0, make_noise().gradients) for x in (0.0, 0.1))
    steps = (other - one) / grid_step(1.0)
    assert np.all(steps == np.rint(0.1 / grid_step(1.0)))


def test_rounding_stays_within_the_reserve() -> None:
    generator = np.random.default_rng(1)
    total, share = generator.normal(size=5000), generator.normal(size=5000) * 1e-3
    step = grid_step(2.0)
    moved = (np.rint((total + share) / step) - np.rint(total / step)) * step
    assert np.linalg.norm(moved) <= np.linalg.norm(share) + clipping_reserve(2.0, 5000)
    assert clipping_reserve(2.0, 10_000_000) < 1e-3


def test_the_same_key_task_and_cohort_give_the_same_stream() -> None:
    assert np.array_equal(make_noise().gradients.normals(100), make_noise().gradients.normals(100))


@pytest.mark.parametrize(
    "other", [make_noise(task="sha256:other"), make_noise(cohort="sha256:other"), make_noise(key=b"o" * 32)]
)
def test_another_key_task_or_cohort_gives_another_stream(other: NoiseSource) -> None:
    normals, others = make_noise().gradients.normals(5000), other.gradients.normals(5000)
    assert abs(np.corrcoef(normals, others)[0, 1]) < 0.06


def test_purposes_do_not_share_a_stream() -> None:
    noise = make_noise()
    streams = [noise.sampling, noise.images, noise.gradients, noise.augmentation, noise.histograms]
    assert len({stream.words(1).tobytes() for stream in streams}) == len(streams)


def test_the_stream_is_chacha20() -> None:
    expected = Cipher(ChaCha20(b"x" * 32, bytes(16)), mode=None).encryptor().update(bytes(64))
    stream = SecureStream(b"x" * 32)
    assert stream.words(3).tobytes() + stream.words(5).tobytes() == expected


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_any_number_of_normals_can_be_drawn(count: int) -> None:
    assert make_noise().gradients.normals(count).shape == (count,)


def test_a_permutation_holds_every_number_once() -> None:
    assert sorted(make_noise().images.permutation(50).tolist()) == list(range(50))


def test_what_cannot_be_noised_is_refused() -> None:
    stream = make_noise().gradients
    with pytest.raises(ValueError, match="positive"):
        add_gaussian_noise(np.zeros(3), 0.0, stream)
    with pytest.raises(ValueError, match="finite"):
        add_gaussian_noise(np.array([np.nan]), 1.0, stream)


def test_a_short_key_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseSource(b"short", "t", "c")
    assert "kkkk" not in repr(make_noise())


def _product_cdf(values: np.ndarray) -> np.ndarray:
    # The product of two independent standard normals, by its known density K0(|x|)/pi.
    from scipy.special import k0

    grid = np.linspace(1e-6, 12, 400_001)
    half = np.cumsum(k0(grid)) * (grid[1] - grid[0]) / np.pi
    return np.asarray(0.5 + np.sign(values) * np.interp(np.abs(values), grid, np.minimum(half / half[-1] / 2, 0.5)))
