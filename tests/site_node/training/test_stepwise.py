"""A study's steps do what MONAI's pipeline of the same transforms does, beginning with MONAI's own DICOM reader."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai import transforms
from monai.data.meta_obj import get_track_meta

from protocol.preprocessing import Preprocessing
from site_node.dicom.pixels import read_pixels
from site_node.dicom.volume import read_volume, stack_of
from site_node.privacy.noise import SecureStream
from site_node.training.stepwise import (
    prepared_picture_mask,
    prepared_volume,
    prepared_volume_mask,
    upright_axes,
)
from site_node.training.transforms import augment, augment_with_masks, preparation
from tests.fakes.dicom import make_dataset, save
from tests.fakes.series import AXIAL, CORONAL, SAGITTAL, positions_of, saved, series_of

CT: list[dict[str, Any]] = [
    {"transform": "Orientation", "axcodes": "RAS"},
    {"transform": "Spacing", "pixdim": [0.7, 0.9, 2.0]},
    {"transform": "ScaleIntensityRange", "a_min": -900, "a_max": 200, "b_min": 0.0, "b_max": 1.0, "clip": True},
    {"transform": "CropForeground", "margin": 1},
    {"transform": "ResizeWithPadOrCrop", "spatial_size": [12, 10, 8]},
]
MR: list[dict[str, Any]] = [
    {"transform": "Spacing", "pixdim": [1.0, 1.0, 1.0]},
    {"transform": "Orientation", "axcodes": "LPS"},
    {"transform": "NormalizeIntensity", "nonzero": True},
    {"transform": "SpatialPad", "spatial_size": [10, 10, 10]},
    {"transform": "CenterSpatialCrop", "roi_size": [9, 9, 9]},
    {"transform": "Resize", "spatial_size": [12, 12, 12], "mode": "linear"},
]
FLAT: list[dict[str, Any]] = [
    {"transform": "ScaleIntensityRangePercentiles", "lower": 2, "upper": 98, "b_min": 0, "b_max": 1, "clip": True},
    {"transform": "Resize", "spatial_size": [12, 16]},
    {"transform": "ScaleIntensity", "minv": -1.0, "maxv": 1.0},
    {"transform": "NormalizeIntensity", "subtrahend": 0.5, "divisor": 0.5},
]


@pytest.fixture(autouse=True)
def _tracking() -> Iterator[None]:
    before = get_track_meta()
    yield
    monai.data.set_track_meta(before)


def terms_of(steps: list[dict[str, Any]], size: list[int]) -> Preprocessing:
    return Preprocessing.model_validate({"size": size, "steps": steps})


def by_monai(path: Path, steps: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """Return what MONAI makes of a DICOM file, or a folder of one series, from its own reader on."""
    monai.data.set_track_meta(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI tells which optional readers are missing, and of pictures without place
        pipeline: list[Any] = [
            transforms.LoadImaged("image", reader="PydicomReader"), transforms.EnsureChannelFirstd("image"),
        ]  # fmt: skip
        for step in steps:
            stated = {key: value for key, value in step.items() if key != "transform"}
            if stated.get("mode") == "linear":
                stated["mode"] = "trilinear" if len(stated["spatial_size"]) == 3 else "bilinear"
            more = {"source_key": "image"} if step["transform"] == "CropForeground" else {}
            pipeline.append(getattr(transforms, f"{step['transform']}d")("image", **stated, **more))
        return np.asarray(transforms.Compose(pipeline)({"image": path})["image"])


def make_series(folder: Path, orientation: tuple[float, ...] = AXIAL) -> list[Path]:
    values = np.random.default_rng(3).integers(1, 1500, (7, 12, 10)).astype(np.int16)
    return saved(series_of(values, positions_of(7, orientation=orientation), orientation=orientation), folder)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL])
@pytest.mark.parametrize(("steps", "size"), [(CT, [12, 10, 8]), (MR, [12, 12, 12])])
def test_a_volume_is_what_monai_makes_of_the_series(
    tmp_path: Path, orientation: tuple[float, ...], steps: list[dict[str, Any]], size: list[int]
) -> None:
    paths = make_series(tmp_path, orientation)
    ours = prepared_volume(terms_of(steps, size), paths)
    assert ours.shape == (1, *size)
    np.testing.assert_allclose(ours, by_monai(tmp_path, steps), atol=2e-5)


def test_a_picture_is_what_monai_makes_of_the_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 4000, (21, 17)).astype(np.uint16)
    path = save(make_dataset(pixels), tmp_path / "one.dcm")
    ours: np.ndarray[Any, Any] = preparation(terms_of(FLAT, [12, 16]))(read_pixels(path))
    np.testing.assert_allclose(ours, by_monai(path, FLAT), atol=2e-6)


@pytest.mark.parametrize("steps", [CT, MR])
def test_a_mask_goes_the_way_of_its_volume(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    paths = make_series(tmp_path)
    values = read_volume(paths).values
    terms = terms_of(steps, [12, 10, 8] if steps is CT else [12, 12, 12])
    mask = np.zeros(values.shape, np.uint8)
    mask[:, 6:, :] = 1  # towards the back
    moved = prepared_volume_mask(terms, paths, mask, stack_of(paths))
    assert moved.shape == tuple(terms.size)
    inside = prepared_volume_mask(terms, paths, np.ones(values.shape, np.uint8), stack_of(paths))
    shown = inside.sum(axis=(0, 2))  # along the axis of front and back
    filled = [float(part) / float(whole) for part, whole in zip(moved.sum(axis=(0, 2)), shown, strict=True) if whole]
    assert set(filled) == {0.0, 1.0}
    assert filled == sorted(filled, reverse=steps is CT)  # RAS counts to the front, LPS to the back


def test_a_mask_goes_the_way_of_its_picture(tmp_path: Path) -> None:
    picture = np.zeros((20, 10), np.float32)
    picture[4:8, 2:6] = 100.0
    steps: list[dict[str, Any]] = [
        {"transform": "ScaleIntensity"},
        {"transform": "CropForeground"},
        {"transform": "Resize", "spatial_size": [8, 8]},
    ]
    mask = np.zeros((20, 10), np.uint8)
    mask[4:6, 2:6] = 2  # the upper half of what is bright: of columns first, the first half of the second axis
    moved = prepared_picture_mask(terms_of(steps, [8, 8]), picture, mask)
    assert (moved[:, :4] == 2).all()
    assert not moved[:, 4:].any()


def test_an_image_without_foreground_is_left_whole() -> None:
    steps: list[dict[str, Any]] = [{"transform": "CropForeground"}, {"transform": "Resize", "spatial_size": [8, 8]}]
    black = preparation(terms_of(steps, [8, 8]))(np.zeros((9, 9), np.float32))
    assert black.shape == (1, 8, 8)
    assert not black.any()


@pytest.mark.parametrize(
    ("steps", "size", "axes"),
    [
        ([], [8, 8], (0, 1)),
        (FLAT, [12, 16], (1, 0)),
        (CT, [12, 10, 8], (2, 1, 0)),
        ([{"transform": "Orientation", "axcodes": "SPL"}], [8, 8, 8], (0, 1, 2)),
        ([{"transform": "Orientation", "axcodes": "ASR"}], [8, 8, 8], (1, 0, 2)),
    ],
)
def test_augmentation_knows_where_the_sides_are(
    steps: list[dict[str, Any]], size: list[int], axes: tuple[int, ...]
) -> None:
    assert upright_axes(terms_of(steps, size)) == axes


def test_a_turned_volume_is_varied_as_the_upright_one() -> None:
    images = torch.randn(3, 1, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    masks = (images[:, 0] > 0).float()
    there = (0, 1, 4, 3, 2)
    upright = augment_with_masks(images, masks, "medium", SecureStream(b"s" * 32), mirror=True)
    turned = augment_with_masks(
        images.permute(there), masks.permute(0, 3, 2, 1), "medium", SecureStream(b"s" * 32), mirror=True,
        upright=(2, 1, 0),
    )  # fmt: skip
    torch.testing.assert_close(turned[0].permute(there), upright[0])
    torch.testing.assert_close(turned[1].permute(0, 3, 2, 1), upright[1])
    alone = augment(images, "light", SecureStream(b"t" * 32))
    torch.testing.assert_close(alone, augment(images, "light", SecureStream(b"t" * 32), upright=(0, 1, 2)))
