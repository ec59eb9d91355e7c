import numpy as np
import pytest
import torch

from protocol.preprocessing import Preprocessing
from site_node.errors import PixelsError
from site_node.training.transforms import augment, preparation
from tests.site_node.training.examples import make_noise

PICTURE = np.random.default_rng(0).uniform(0, 4000, (30, 50)).astype(np.float32)


@pytest.mark.parametrize("intensity", ["percentile", "minmax"])
def test_any_picture_becomes_a_standardised_square(intensity: str) -> None:
    prepared = preparation(Preprocessing.model_validate({"size": [20, 20], "intensity": intensity}))(PICTURE)
    assert prepared.shape == (1, 20, 20)
    assert prepared.dtype == np.float32
    assert prepared.mean() == pytest.approx(0, abs=1e-5)
    assert prepared.std() == pytest.approx(1, abs=1e-2)


def test_padding_keeps_the_proportions() -> None:
    bright = np.full((10, 40), 100.0, np.float32)
    bright[0, 0] = 0.0
    prepared = preparation(Preprocessing(size=[40, 40]))(bright)[0]
    assert prepared[20, 20] > 0 > prepared[2, 20]
    assert (prepared[:, 20] > 0).sum() == 10


def test_scanner_gain_and_offset_do_not_matter() -> None:
    prepare = preparation(Preprocessing(size=[16, 16]))
    assert np.allclose(prepare(PICTURE), prepare(PICTURE * 7.5 - 1000), atol=1e-3)


def test_an_even_picture_becomes_zeros_not_nan() -> None:
    assert not preparation(Preprocessing(size=[16, 16]))(np.full((8, 8), 5.0, np.float32)).any()


def test_volumes_are_prepared_too() -> None:
    volume = np.random.default_rng(0).normal(size=(8, 12, 10)).astype(np.float32)
    assert preparation(Preprocessing(size=[16, 16, 16]))(volume).shape == (1, 16, 16, 16)


def test_a_picture_in_a_study_of_volumes_is_refused() -> None:
    with pytest.raises(PixelsError, match="3 dimensions, this one has 2"):
        preparation(Preprocessing(size=[16, 16, 16]))(PICTURE)


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
@pytest.mark.parametrize("kind", ["light", "medium"])
def test_augmentation_varies_images_a_little_and_repeatably(kind: str, size: tuple[int, ...]) -> None:
    images = torch.randn(6, 1, *size, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    varied = augment(images, kind, make_noise().augmentation)
    assert varied.shape == images.shape
    assert torch.equal(varied, augment(images, kind, make_noise().augmentation))
    assert not torch.equal(varied, images)
    agreement = torch.corrcoef(torch.stack([varied.flatten(), images.flatten()]))[0, 1]
    assert agreement > 0.8


def test_images_are_varied_each_in_its_own_way() -> None:
    images = torch.arange(256.0).view(1, 1, 16, 16).repeat(2, 1, 1, 1)
    varied = augment(images, "medium", make_noise().augmentation)
    assert not torch.allclose(varied[0], varied[1])


def test_no_augmentation_leaves_images_alone() -> None:
    images = torch.randn(2, 1, 8, 8)
    assert augment(images, "none", make_noise().augmentation) is images
    assert augment(images[:0], "light", make_noise().augmentation).shape == (0, 1, 8, 8)
