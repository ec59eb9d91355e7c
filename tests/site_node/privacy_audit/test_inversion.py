import numpy as np
import pytest
from scipy import stats

from protocol.tensors import Weights
from site_node.errors import OrderError
from site_node.privacy_audit import inversion
from site_node.privacy_audit.figure import chest_phantom
from site_node.privacy_audit.inversion import Update, View, masked, one_image_update, rebuild
from site_node.privacy_audit.reference_studies import chest_study
from site_node.privacy_audit.similarity import similarity
from tests.site_node.training.examples import make_study

STUDY = chest_study(8.0)
IMAGE = chest_phantom(64)
ITERATIONS = 400


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([array.ravel() for array in weights.values()]).astype(np.float64)


def test_an_image_can_be_rebuilt_from_its_plain_update() -> None:
    found = similarity(IMAGE, rebuild(one_image_update(STUDY, IMAGE, 1, "plain", 0), 0))
    assert found.correlation > 0.99
    assert found.ssim > 0.9


def test_the_label_is_found_too() -> None:
    found = rebuild(one_image_update(STUDY, IMAGE, 0, "plain", 0), 0, ITERATIONS)
    assert similarity(IMAGE, found).correlation > 0.9


@pytest.mark.parametrize("view", ["private", "masked"])
def test_nothing_of_it_is_rebuilt_from_a_private_or_masked_update(view: View) -> None:
    found = similarity(IMAGE, rebuild(one_image_update(STUDY, IMAGE, 1, view, 0), 0, ITERATIONS))
    assert abs(found.correlation) < 0.1
    assert found.ssim < 0.1


def test_rounding_alone_hides_nothing_so_it_is_the_mask_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "add_masks", lambda words, masks, ring: words)
    found = rebuild(one_image_update(STUDY, IMAGE, 1, "masked", 0), 0, ITERATIONS)
    assert similarity(IMAGE, found).correlation > 0.9


def test_clipping_alone_hides_nothing_so_it_is_the_noise_that_does() -> None:
    private = one_image_update(STUDY, IMAGE, 1, "private", 0)
    plain = one_image_update(STUDY, IMAGE, 1, "plain", 0)
    assert private.noise_multiplier is not None
    assert private.noise_multiplier == pytest.approx(2.504, abs=0.01)  # the demo study's, at epsilon 8
    one, other = flat(private.difference), flat(plain.difference)
    noise = (one - other) / (STUDY.training.learning_rate * private.noise_multiplier)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert np.linalg.norm(other) <= STUDY.training.learning_rate * STUDY.privacy.clip_norm * 1.001


def test_masked_words_are_uniform_whatever_the_update() -> None:
    for difference in ({"a": np.zeros(60_000, np.float32)}, {"a": np.full(60_000, 0.1, np.float32)}):
        values = masked(difference, 3)["a"] / (0.5 / 4095)
        words = np.rint(values).astype(np.int64) % 65_536
        assert stats.chisquare(np.bincount(words >> 8, minlength=256)).pvalue > 1e-3
        assert stats.chisquare(np.bincount(words & 255, minlength=256)).pvalue > 1e-3


def test_shapes_and_order_survive_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inversion, "add_masks", lambda words, masks, ring: words)
    difference = {"b": np.full((2, 3), 0.25, np.float32), "a": np.full(4, -0.25, np.float32)}
    seen = masked(difference, 0)
    for name, array in difference.items():
        assert seen[name].shape == array.shape
        assert np.allclose(seen[name], array, atol=0.5 / 4095)


def test_a_study_without_epsilon_is_shown_with_the_noise_of_epsilon_eight() -> None:
    assert (
        one_image_update(chest_study(None), IMAGE, 1, "private", 0).noise_multiplier
        == one_image_update(STUDY, IMAGE, 1, "private", 0).noise_multiplier
    )


def test_the_search_is_the_same_for_the_same_seed() -> None:
    update: Update = one_image_update(STUDY, IMAGE, 1, "plain", 0)
    assert np.array_equal(rebuild(update, 1, 5), rebuild(update, 1, 5))
    assert not np.array_equal(rebuild(update, 1, 5), rebuild(update, 2, 5))


def test_volumes_are_refused_with_the_remedy() -> None:
    study = make_study(size=(16, 16, 16))
    with pytest.raises(OrderError, match="two numbers"):
        one_image_update(study, IMAGE, 1, "plain", 0)
