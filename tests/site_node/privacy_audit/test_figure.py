import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from site_node.privacy_audit.figure import GAP_PIXELS, ZOOM, chest_phantom, grey_png, side_by_side
from site_node.privacy_audit.similarity import similarity

PICTURE = chest_phantom(32)


def test_a_png_is_read_back_as_it_was_written() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 13), dtype=np.uint8)
    read = Image.open(BytesIO(grey_png(pixels, "what it shows")))
    assert np.array_equal(np.asarray(read), pixels)
    assert read.info["Description"] == "what it shows"


def test_pictures_stand_side_by_side_with_white_between() -> None:
    pixels = side_by_side([PICTURE, -PICTURE])
    assert pixels.shape == (32 * ZOOM, 2 * 32 * ZOOM + GAP_PIXELS)
    assert (pixels[:, 32 * ZOOM : 32 * ZOOM + GAP_PIXELS] == 255).all()
    left, right = pixels[:, : 32 * ZOOM].astype(int), pixels[:, 32 * ZOOM + GAP_PIXELS :].astype(int)
    assert np.abs(left + right - 255).max() <= 1


def test_equal_pictures_are_alike_in_every_figure() -> None:
    found = similarity(PICTURE, PICTURE)
    assert (found.correlation, found.ssim) == pytest.approx((1.0, 1.0))
    assert found.psnr_db == math.inf


def test_noise_is_like_nothing() -> None:
    noise = np.random.default_rng(1).normal(size=PICTURE.shape).astype(np.float32)
    found = similarity(PICTURE, noise)
    assert abs(found.correlation) < 0.1
    assert found.ssim < 0.2


def test_the_ratio_of_a_known_error_is_known() -> None:
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (32, 1))
    moved = np.clip(ramp + 0.1, 0, 1)
    error = float(np.mean((moved - ramp) ** 2))
    assert similarity(ramp, moved).psnr_db == pytest.approx(-10 * math.log10(error), abs=1e-3)


def test_an_even_picture_is_correlated_with_nothing() -> None:
    assert similarity(PICTURE, np.zeros_like(PICTURE)).correlation == 0.0
