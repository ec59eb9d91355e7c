import numpy as np
import torch

from protocol.preprocessing import Preprocessing
from site_node.training.transforms import augment, preparation
from tests.site_node.training.examples import make_noise


def test_in_a_window_a_value_means_the_same_in_every_image() -> None:
    terms = Preprocessing(size=[8, 8], intensity="window", window=[-160, 240])
    prepare = preparation(terms)
    dark, bright = np.full((8, 8), 40.0, np.float32), np.full((8, 8), 40.0, np.float32)
    bright[:4] = 3000.0
    assert np.allclose(prepare(dark), 0.0)
    assert np.allclose(prepare(bright)[0, 4:], 0.0)
    assert np.allclose(prepare(bright)[0, :4], 1.0)
    assert np.allclose(prepare(np.full((8, 8), -1000.0, np.float32)), -1.0)


def test_about_half_of_the_images_are_mirrored_and_nothing_else_is_done_to_them() -> None:
    images = torch.arange(8.0).expand(200, 1, 8, 8).contiguous()
    varied = augment(images, "none", make_noise().augmentation, mirror=True)
    same = [torch.allclose(one, images[0], atol=1e-4) for one in varied]
    turned = [torch.allclose(one, images[0].flip(-1), atol=1e-4) for one in varied]
    assert all(a != b for a, b in zip(same, turned, strict=True))
    assert 60 < sum(turned) < 140


def test_mirroring_is_drawn_after_all_else() -> None:
    images = torch.randn(20, 1, 8, 8)
    plain = augment(images, "medium", make_noise().augmentation)
    mirrored = augment(images, "medium", make_noise().augmentation, mirror=True)
    unturned = [bool(torch.equal(a, b)) for a, b in zip(plain, mirrored, strict=True)]
    assert 0 < sum(unturned) < 20
