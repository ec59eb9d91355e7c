"""A mask on other voxels: every value kept or the mask refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from site_node.dicom.volume import read_volume
from site_node.dicom.volume_affine import upright
from site_node.errors import MaskError
from site_node.labels.mask_geometry import (
    FLAT,
    NO_PLACE,
    OUTSIDE,
    UNCOVERED,
    PictureGeometry,
    geometry_of_picture,
    geometry_of_volume,
    onto_picture,
)
from tests.fakes.dicom import make_dataset, save
from tests.fakes.series import AXIAL, CORONAL, SAGITTAL, body, enhanced, positions_of, saved, series_of, slice_of

SHAPE = (4, 6, 5)
PICTURE = PictureGeometry(SHAPE, np.diag([3.0, 2.0, 1.0, 1.0]))


def marks() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 3, SHAPE, np.uint8)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL])
def test_the_geometry_of_a_series_is_that_of_its_volume(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    slices = series_of(body(), positions_of(4, orientation=orientation), orientation=orientation)
    paths = saved(slices, tmp_path)
    geometry, volume = geometry_of_volume(paths), read_volume(paths)
    assert geometry.shape == volume.values.shape
    np.testing.assert_array_equal(geometry.placed(), volume.affine)
    corners = [round(float(value)) + 1024 for value in volume.values[:, 0, 0]]
    expected = {100 * number: str(one.SOPInstanceUID) for number, one in enumerate(slices)}
    assert dict(zip(corners, geometry.sop_instance_uids, strict=True)) == expected
    assert geometry.series_instance_uid == str(slices[0].SeriesInstanceUID)
    assert geometry.frame_of_reference_uid == str(slices[0].FrameOfReferenceUID)


def test_the_slices_of_an_enhanced_image_are_its_frames(tmp_path: Path) -> None:
    dataset = enhanced(body(), positions_of(4)[::-1])
    geometry = geometry_of_volume([save(dataset, tmp_path / "one.dcm")])
    assert geometry.sop_instance_uids == (str(dataset.SOPInstanceUID),) * 4
    assert geometry.frames == (3, 2, 1, 0)


def test_a_radiograph_has_a_size_and_no_place(tmp_path: Path) -> None:
    geometry = geometry_of_picture(save(make_dataset(np.zeros((3, 4), np.uint8)), tmp_path / "one.dcm"))
    assert (geometry.shape, geometry.affine_mm) == ((3, 4), None)
    with pytest.raises(MaskError, match=NO_PLACE):
        onto_picture(np.zeros((1, 3, 4)), np.eye(4), geometry)


def test_a_slice_alone_lies_where_its_header_says(tmp_path: Path) -> None:
    path = save(slice_of(body()[0], (1.0, 2.0, 3.0), "one"), tmp_path / "one.dcm")
    affine = geometry_of_picture(path).placed()
    np.testing.assert_allclose(affine @ [0, 0, 0, 1], [-1, -2, 3, 1])
    np.testing.assert_allclose(affine @ [0, 5, 2, 1], [-1 - 2 * 0.5, -2 - 5 * 0.8, 3, 1])


def test_what_is_no_image_has_no_geometry(tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("nothing")
    with pytest.raises(MaskError, match="cannot be read"):
        geometry_of_picture(tmp_path / "text.dcm")


@given(order=st.permutations(range(3)), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()))
@settings(max_examples=48, deadline=None)
def test_whatever_way_a_masks_axes_run_every_value_is_kept(order: list[int], flips: tuple[bool, ...]) -> None:
    mask, affine = np.transpose(marks(), order), PICTURE.placed()[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (mask.shape[axis] - 1)
            affine[:3, axis] *= -1
            mask = np.flip(mask, axis)
    np.testing.assert_array_equal(onto_picture(mask, affine, PICTURE), marks())


def test_a_mask_turned_upright_comes_back(tmp_path: Path) -> None:
    paths = saved(series_of(body(), positions_of(4, orientation=SAGITTAL), orientation=SAGITTAL), tmp_path)
    geometry = geometry_of_volume(paths)
    turned, affine = upright(marks(), geometry.placed())
    np.testing.assert_array_equal(onto_picture(turned, affine, geometry), marks())


def test_a_mask_of_half_the_voxels_gives_each_of_the_pictures_the_one_it_lies_in() -> None:
    coarse = np.array([[[0, 1, 2]]], np.uint8)
    fine = PictureGeometry((1, 1, 6), np.diag([1.0, 1.0, 1.0, 1.0]))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[2, 3] = 0.5  # the first coarse voxel is the first two fine ones
    np.testing.assert_array_equal(onto_picture(coarse, affine, fine), [[[0, 0, 1, 1, 2, 2]]])


def test_a_mask_of_a_part_of_the_picture_is_refused() -> None:
    with pytest.raises(MaskError, match=UNCOVERED):
        onto_picture(marks()[:3], PICTURE.placed(), PICTURE)


def test_a_mask_that_lies_beside_the_picture_is_refused() -> None:
    affine = PICTURE.placed().copy()
    affine[2, 3] = 2.0
    with pytest.raises(MaskError, match=UNCOVERED):
        onto_picture(marks(), affine, PICTURE)


def test_marks_outside_the_picture_are_refused_and_empty_room_is_not() -> None:
    larger = np.zeros((4, 6, 9), np.uint8)
    larger[..., :5] = marks()
    np.testing.assert_array_equal(onto_picture(larger, PICTURE.placed(), PICTURE), marks())
    larger[0, 0, 8] = 1
    with pytest.raises(MaskError, match=OUTSIDE):
        onto_picture(larger, PICTURE.placed(), PICTURE)


def test_an_affine_without_a_way_back_is_refused() -> None:
    with pytest.raises(MaskError, match=FLAT):
        onto_picture(marks(), np.diag([1.0, 1.0, 0.0, 1.0]), PICTURE)


def test_a_series_mask_gives_each_of_its_pictures_its_own_slice() -> None:
    mask = marks()
    for number in range(len(mask)):
        place = PICTURE.placed().copy()
        place[:3, 3] += number * place[:3, 0]
        alone = PictureGeometry(mask.shape[1:], place)
        np.testing.assert_array_equal(onto_picture(mask, PICTURE.placed(), alone), mask[number])


def test_marks_beside_a_picture_in_its_own_plane_are_refused() -> None:
    larger = np.zeros((4, 6, 9), np.uint8)
    larger[0, 0, 8] = 1
    alone = PictureGeometry(marks().shape[1:], PICTURE.placed())
    with pytest.raises(MaskError, match=OUTSIDE):
        onto_picture(larger, PICTURE.placed(), alone)
