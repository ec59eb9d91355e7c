"""A series' slices: sorted by where they lie, and each reason why they make no volume."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from site_node.dicom import series, series_plane
from site_node.dicom.series import Stack, stacked
from site_node.dicom.series_plane import Plane, planes_of
from site_node.dicom.volume_choice import Candidate, chosen
from site_node.errors import SeriesError
from tests.fakes.series import AXIAL, CORONAL, ORIGIN, SAGITTAL, body, enhanced, positions_of, series_of

Slices = list[Dataset]


def planes(slices: Slices) -> list[Plane]:
    return [plane for source, dataset in enumerate(slices) for plane in planes_of(dataset, source)]


def stack(slices: Slices) -> Stack:
    return stacked(planes(slices))


def regular() -> Slices:
    return series_of(body(), positions_of(4))


def test_slices_are_sorted_by_place_and_not_by_instance_number() -> None:
    slices = regular()
    found = stack([slices[2], slices[0], slices[3], slices[1]])
    assert [plane.source for plane in found.planes] == [1, 3, 0, 2]
    assert [int(slices[n].InstanceNumber) for n in range(4)] == [4, 3, 2, 1]


def test_the_spacing_between_slices_comes_from_their_places() -> None:
    slices = series_of(body(), positions_of(4, 2.5), SliceThickness="5", SpacingBetweenSlices="1")
    assert stack(slices).spacing_mm == pytest.approx((2.5, 0.8, 0.5))


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, CORONAL, (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)])
def test_every_orientation_is_stacked_along_its_normal(orientation: tuple[float, ...]) -> None:
    slices = series_of(body(), positions_of(4, orientation=orientation), orientation=orientation)
    found = stack(slices[::-1])
    assert [plane.source for plane in found.planes] == [3, 2, 1, 0]
    assert found.tilt_degrees == pytest.approx(0, abs=1e-3)


def change(number: int, **headers: object) -> Callable[[Slices], Slices]:
    def changed(slices: Slices) -> Slices:
        for keyword, value in headers.items():
            if value is None:
                delattr(slices[number], keyword)
            else:
                setattr(slices[number], keyword, value)
        return slices

    return changed


def moved(number: int, *, by: tuple[float, float, float]) -> Callable[[Slices], Slices]:
    return lambda slices: change(
        number,
        ImagePositionPatient=[a + b for a, b in zip(slices[number].ImagePositionPatient, by, strict=True)],
    )(slices)


LOCALISER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

FAULTS: dict[str, tuple[Callable[[Slices], Slices], str]] = {
    "a missing slice": (lambda s: [s[0], s[1], s[3], *s[4:]], series.GAP),
    "a slice a little aside along the normal": (moved(2, by=(0, 0, 0.4)), series.UNEVEN),
    "a slice aside in its plane": (moved(2, by=(0.5, 0, 0)), series.NOT_IN_LINE),
    "two slices at one place": (moved(2, by=(0, 0, -2.5)), series.REPEATED_POSITIONS),
    "one slice turned": (change(1, ImageOrientationPatient=list(CORONAL)), series.MIXED_ORIENTATIONS),
    "one slice of other size": (change(1, Rows=5), series.SIZES_DIFFER),
    "one slice of other spacing": (change(1, PixelSpacing=[0.8, 0.6]), series.SPACINGS_DIFFER),
    "another point of reference": (change(1, FrameOfReferenceUID="1.2.3"), series.SEVERAL_FRAMES_OF_REFERENCE),
    "a single slice": (lambda s: s[:1], series.SINGLE_SLICE),
    "localisers only": (
        lambda s: [change(n, ImageType=LOCALISER)(s)[n] for n in range(len(s))],
        series.ONLY_LOCALISERS,
    ),
    "no position": (change(1, ImagePositionPatient=None), series_plane.NO_PLACE),
    "no orientation": (change(1, ImageOrientationPatient=None), series_plane.NO_PLACE),
    "directions that are no directions": (change(1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), series_plane.NO_PLACE),
    "directions of no length": (change(1, ImageOrientationPatient=[0, 0, 0, 0, 1, 0]), series_plane.NO_PLACE),
    "no spacing": (change(1, PixelSpacing=None), series_plane.NO_SPACING),
    "spacing of nothing": (change(1, PixelSpacing=[0, 0.5]), series_plane.NO_SPACING),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_series_has_its_name(fault: str) -> None:
    spoil, reason = FAULTS[fault]
    with pytest.raises(SeriesError) as caught:
        stack(spoil(series_of(body(6), positions_of(6))))
    assert caught.value.message == reason


def test_a_localiser_among_the_slices_is_left_out() -> None:
    slices = regular()
    aside = series_of(body(1), positions_of(1, orientation=CORONAL), orientation=CORONAL, ImageType=LOCALISER)[0]
    aside.SOPInstanceUID = "1.2.3"
    found = stack([aside, *slices])
    assert (len(found.planes), found.localisers) == (4, 1)


def test_a_copy_of_a_slice_counts_once() -> None:
    slices = regular()
    assert [plane.source for plane in stack([*slices, *slices]).planes] == [0, 1, 2, 3]


def test_positions_that_are_rounded_make_a_volume() -> None:
    places = [(x, y, round(30 + n * 1.234567, 2)) for n, (x, y, _) in enumerate(positions_of(9))]
    assert stack(series_of(body(9), places)).spacing_mm[0] == pytest.approx(1.234567, abs=0.002)


def test_a_tilted_gantry_is_recognised_with_its_angle() -> None:
    found = stack(series_of(body(), positions_of(4, tilt_degrees=15)))
    assert found.is_tilted
    assert found.tilt_degrees == pytest.approx(15, abs=0.01)
    assert found.spacing_mm[0] == pytest.approx(2.5)


def test_an_enhanced_image_says_where_each_frame_lies() -> None:
    places = positions_of(4)[::-1]
    found = stacked(planes_of(enhanced(body(), places)))
    assert [plane.frame for plane in found.planes] == [3, 2, 1, 0]
    assert found.spacing_mm == pytest.approx((2.5, 0.8, 0.5))


def test_a_multi_frame_image_without_functional_groups_says_nothing_of_where_it_lies() -> None:
    dataset = series_of(body(1), [ORIGIN])[0]
    dataset.NumberOfFrames = 2
    with pytest.raises(SeriesError, match="do not say where they lie"):
        planes_of(dataset)


PLANE = Plane(0, 0, "a", ORIGIN, (1, 0, 0), (0, 1, 0), 0.8, 0.5, 6, 5)


@given(
    angles=st.tuples(*[st.floats(-math.pi, math.pi)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    tilt=st.floats(-30, 30),
    count=st.integers(2, 12),
    order=st.randoms(use_true_random=False),
)
def test_the_affine_leads_from_voxel_numbers_to_each_slices_own_place(
    angles: tuple[float, ...],
    origin: tuple[float, float, float],
    spacing: tuple[float, float, float],
    tilt: float,
    count: int,
    order: Random,
) -> None:
    turn = rotation(angles)
    step = spacing[0] * (turn[2] + math.tan(math.radians(tilt)) * turn[1])
    slices = [
        replace(
            PLANE,
            source=number,
            instance=str(number),
            position=tuple(np.array(origin) + number * step),
            along_row=tuple(turn[0]),
            down_column=tuple(turn[1]),
            row_spacing_mm=spacing[1],
            column_spacing_mm=spacing[2],
        )
        for number in range(count)
    ]
    order.shuffle(slices)
    found = stacked(slices)
    assert [plane.source for plane in found.planes] == list(range(count))
    for number, plane in enumerate(found.planes):
        np.testing.assert_allclose((found.affine @ [number, 0, 0, 1])[:3], plane.position, atol=1e-6)
        corner = np.array(plane.position) + 5 * spacing[1] * turn[1] + 4 * spacing[2] * turn[0]
        np.testing.assert_allclose((found.affine @ [number, 5, 4, 1])[:3], corner, atol=1e-6)
    assert found.tilt_degrees == pytest.approx(abs(tilt), abs=1e-4)
    assert found.spacing_mm == pytest.approx(spacing)


def rotation(angles: tuple[float, ...]) -> NDArray[np.float64]:
    """Return three directions at right angles, the third the normal of the other two."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [n for n in range(3) if n != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = math.cos(angle)
        one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
        turn = turn @ one
    return turn


def candidate(uid: str, count: int, step_mm: float, **headers: object) -> Candidate:
    return Candidate(uid, stack(series_of(body(count), positions_of(count, step_mm), **headers)))


def test_of_repeated_series_one_is_chosen_by_the_stated_rule() -> None:
    thick, thin = candidate("1.1", 4, 5.0), candidate("1.2", 8, 2.5)
    derived = candidate("1.3", 20, 1.0, ImageType=["DERIVED", "PRIMARY", "MPR"])
    short, same = candidate("1.4", 3, 2.5), candidate("1.5", 8, 2.5)
    assert chosen([thick, thin]) is thin  # both cover 20 mm, the second in thinner slices
    assert chosen([derived, thick]) is thick  # the first is derived, though it is thinner
    assert chosen([short, thick]) is thick  # the first covers 7.5 mm only
    assert chosen([same, thin]) is chosen([thin, same]) is thin  # alike: the smaller UID
    assert chosen([derived]) is derived
