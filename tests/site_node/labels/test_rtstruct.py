"""Structure sets: contours in millimetres filled to the pixel, or refused with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom.volume_affine import RAS_FROM_LPS
from site_node.errors import MaskError
from site_node.labels import mask_geometry, rtstruct, structures
from site_node.labels.masks import MaskRef, PictureGeometry, geometry_of_picture, geometry_of_volume, read_mask
from site_node.labels.naming import class_numbers
from site_node.labels.polygon import filled
from tests.fakes.annotations import structure_set
from tests.fakes.dicom import save
from tests.fakes.series import AXIAL, CORONAL, SAGITTAL, body, positions_of, saved, series_of

CLASSES = class_numbers(["background", "organ", "tumour"], {"GTV 1": "tumour"})
SIZE = (12, 10)


def square(low: float, high: float) -> NDArray[np.float64]:
    return np.array([[low, low], [low, high], [high, high], [high, low]])


def made_series(folder: Path, orientation: tuple[float, ...] = AXIAL) -> tuple[list[Dataset], PictureGeometry]:
    slices = series_of(body(4, *SIZE), positions_of(4, orientation=orientation), orientation=orientation)
    return slices, geometry_of_volume(saved(slices, folder / "images"))


def in_mm(geometry: PictureGeometry, number: float, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return corners (row, column) of a slice in LPS mm."""
    places = np.column_stack([np.full(len(corners), number), corners, np.ones(len(corners))])
    return np.asarray((places @ (RAS_FROM_LPS @ geometry.placed()).T)[:, :3])


def read(dataset: Dataset, folder: Path, geometry: PictureGeometry) -> NDArray[np.uint8]:
    return read_mask(MaskRef(save(dataset, folder / "structures.dcm"), "rtstruct"), geometry, CLASSES)


def test_a_square_holds_the_pixels_whose_centres_lie_in_it() -> None:
    expected = np.zeros(SIZE, bool)
    expected[2:5, 2:5] = True
    np.testing.assert_array_equal(filled([square(1.6, 4.4)], SIZE), expected)
    np.testing.assert_array_equal(filled([square(1.6, 4.4)[::-1]], SIZE), expected)


def test_a_contour_within_another_is_a_hole_and_one_within_the_hole_an_island() -> None:
    inside = filled([square(0.5, 9.5), square(2.5, 7.5), square(4.5, 5.5)], SIZE)
    assert (int(inside.sum()), bool(inside[5, 5]), bool(inside[4, 4])) == (81 - 25 + 1, True, False)


def test_a_keyhole_is_the_same_as_a_hole() -> None:
    outer, inner = square(0.5, 9.5), square(2.5, 7.5)
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    np.testing.assert_array_equal(filled([keyhole], SIZE), filled([outer, inner], SIZE))


def test_what_sticks_out_is_cut_at_the_edge() -> None:
    assert filled([square(-3.0, 30.0)], SIZE).all()
    assert not filled([square(20.0, 30.0)], SIZE).any()


CORNERS = st.lists(st.tuples(st.integers(-20, 140), st.integers(-20, 140)), min_size=3, max_size=9)


@given(corners=CORNERS)
@settings(max_examples=80, deadline=None)
def test_a_centre_belongs_if_a_line_from_it_crosses_the_contour_an_odd_number_of_times(
    corners: list[tuple[int, int]],
) -> None:
    contour = np.array(corners) / 10 + 0.037  # no corner in a row of centres
    inside = filled([contour], SIZE)
    edges = list(zip(contour, np.roll(contour, -1, axis=0), strict=True))
    for row, column in np.ndindex(SIZE):
        crossings = [
            c1 + (row - r1) * (c2 - c1) / (r2 - r1) for (r1, c1), (r2, c2) in edges if (r1 < row) != (r2 < row)
        ]
        if all(abs(crossing - column) > 1e-9 for crossing in crossings):  # on the contour itself either is right
            assert inside[row, column] == bool(sum(crossing < column for crossing in crossings) % 2)


@given(middle=st.floats(0.5, 9.5), corners=CORNERS)
@settings(max_examples=40, deadline=None)
def test_two_areas_that_share_an_edge_share_no_pixel_and_leave_none(
    middle: float, corners: list[tuple[int, int]]
) -> None:
    left = np.array([[0.0, 0.0], [0.0, middle], [10.0, middle], [10.0, 0.0]])
    right = np.array([[0.0, middle], [0.0, 9.0], [10.0, 9.0], [10.0, middle]]) if middle < 9 else None
    whole = np.array([[0.0, 0.0], [0.0, max(9.0, middle)], [10.0, max(9.0, middle)], [10.0, 0.0]])
    halves = [filled([left], SIZE), filled([right], SIZE)] if right is not None else [filled([left], SIZE)]
    assert not np.logical_and.reduce(halves).any() or len(halves) == 1
    np.testing.assert_array_equal(np.logical_or.reduce(halves), filled([whole], SIZE))
    np.testing.assert_array_equal(filled([np.array(corners), np.array(corners)], SIZE), np.zeros(SIZE, bool))


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL])
@pytest.mark.parametrize("named", [True, False])
def test_contours_are_filled_on_their_own_slices(
    tmp_path: Path, orientation: tuple[float, ...], *, named: bool
) -> None:
    slices, geometry = made_series(tmp_path, orientation)
    drawn = {
        "GTV 1": [(1, in_mm(geometry, 1, square(3.6, 5.4)))],
        "Organ": [(1, in_mm(geometry, 1, square(1.6, 7.4))), (2, in_mm(geometry, 2, square(1.6, 2.4)))],
        "Couch": [(0, in_mm(geometry, 0, square(0.0, 9.0)))],
    }
    expected = np.zeros((4, *SIZE), np.uint8)
    expected[1, 2:8, 2:8], expected[2, 2, 2] = 1, 1
    expected[1, 4:6, 4:6] = 2
    np.testing.assert_array_equal(read(structure_set(slices, drawn, named=named), tmp_path, geometry), expected)


def test_one_slice_takes_the_contours_of_its_own(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    drawn = {"organ": [(n, in_mm(geometry, n, square(0.5, 1.5 + n))) for n in range(3)]}
    path = save(structure_set(slices, drawn), tmp_path / "structures.dcm")
    for number, one in enumerate(slices):
        alone = geometry_of_picture(save(one, tmp_path / "one.dcm"))
        result = read_mask(MaskRef(path, "rtstruct"), alone, CLASSES)
        assert int(result.sum()) == ((number + 1) ** 2 if number < 3 else 0)


@pytest.mark.parametrize(
    ("number", "corners", "more", "reason"),
    [
        (1, square(1, 5), {"geometric_type": "OPEN_PLANAR"}, rtstruct.NOT_CLOSED),
        (1.5, square(1, 5), {"named": False}, mask_geometry.BETWEEN),
        (2, square(1, 5), {}, mask_geometry.BETWEEN),
        (9, square(1, 5), {"named": False}, mask_geometry.OUTSIDE),
        (1, square(20, 25), {}, mask_geometry.OUTSIDE),
    ],
)
def test_contours_that_do_not_fit_are_refused(
    tmp_path: Path, number: float, corners: NDArray[np.float64], more: dict[str, Any], reason: str
) -> None:
    slices, geometry = made_series(tmp_path)
    made = structure_set(slices, {"organ": [(1, in_mm(geometry, number, corners))]}, **more)
    with pytest.raises(MaskError, match=reason):
        read(made, tmp_path, geometry)


def test_a_structure_drawn_on_every_second_slice_is_refused_and_two_lesions_are_not(tmp_path: Path) -> None:
    slices = series_of(body(7, *SIZE), positions_of(7))
    geometry = geometry_of_volume(saved(slices, tmp_path / "images"))

    def drawn_on(*numbers: int) -> Dataset:
        return structure_set(slices, {"organ": [(n, in_mm(geometry, n, square(1.5, 3.5))) for n in numbers]})

    with pytest.raises(MaskError, match=rtstruct.EVERY_OTHER):
        read(drawn_on(0, 2, 4), tmp_path, geometry)
    for numbers in ((0, 5), (1, 2, 5), (3,)):
        marked = read(drawn_on(*numbers), tmp_path, geometry).any(axis=(1, 2))
        assert np.flatnonzero(marked).tolist() == [*numbers]


def test_a_structure_set_of_another_series_is_refused(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    made = structure_set(slices, {"organ": [(1, in_mm(geometry, 1, square(1, 5)))]})
    again = series_of(body(4, *SIZE), positions_of(4), series="again")
    with pytest.raises(MaskError, match=mask_geometry.OTHER_SERIES):
        read(made, tmp_path, geometry_of_volume(saved(again, tmp_path / "again")))
    other = series_of(body(4, *SIZE), positions_of(4), patient_id="P2")
    with pytest.raises(MaskError, match=mask_geometry.OTHER_PLACES):
        read(made, tmp_path, geometry_of_volume(saved(other, tmp_path / "other")))


def test_what_is_no_structure_set_or_names_nothing_known_is_refused(tmp_path: Path) -> None:
    slices, geometry = made_series(tmp_path)
    with pytest.raises(MaskError, match=rtstruct.UNREADABLE):
        read(slices[0], tmp_path, geometry)
    with pytest.raises(MaskError, match=structures.NONE_NAMED):
        read(structure_set(slices, {"BODY": []}), tmp_path, geometry)
    broken = structure_set(slices, {"organ": [(1, in_mm(geometry, 1, square(1, 5)))]})
    broken.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    with pytest.raises(MaskError, match=rtstruct.UNREADABLE):
        read(broken, tmp_path, geometry)
