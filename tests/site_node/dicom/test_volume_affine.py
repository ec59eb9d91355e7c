"""From voxel numbers to millimetres: against numbers computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from site_node.dicom.volume_affine import lps_affine, ras_from_lps, spacing_of, upright

AXIAL = lps_affine((-100, -120, 40), slice_step=(0, 0, 5), row_step=(0, 0.8, 0), column_step=(0.5, 0, 0))


def test_an_axial_series_by_hand() -> None:
    # voxel (slice 2, row 10, column 20): x = -100 + 20 * 0.5, y = -120 + 10 * 0.8, z = 40 + 2 * 5, in LPS
    np.testing.assert_allclose(AXIAL @ [2, 10, 20, 1], [-90, -112, 50, 1])
    np.testing.assert_allclose(ras_from_lps(AXIAL) @ [2, 10, 20, 1], [90, 112, 50, 1])
    assert spacing_of(AXIAL) == pytest.approx((5, 0.8, 0.5))


def test_the_affine_to_ras_of_an_axial_series_is_what_nibabel_writes() -> None:
    # nibabel's affine for an array (column, row, slice) of this series is
    #   [-0.5 0 0 100; 0 -0.8 0 120; 0 0 5 40; 0 0 0 1]; ours is for (slice, row, column): its columns turned round
    expected = np.array([[0, 0, -0.5, 100], [0, -0.8, 0, 120], [5, 0, 0, 40], [0, 0, 0, 1]])
    np.testing.assert_allclose(ras_from_lps(AXIAL), expected)


def test_a_sagittal_series_by_hand() -> None:
    # rows run to the back, columns to the feet: the normal points to the patient's left
    affine = lps_affine((-30, -90, 80), slice_step=(3, 0, 0), row_step=(0, 0, -1), column_step=(0, 1, 0))
    np.testing.assert_allclose(ras_from_lps(affine) @ [4, 10, 20, 1], [18, 70, 70, 1])


def test_twice_is_nothing() -> None:
    np.testing.assert_array_equal(ras_from_lps(ras_from_lps(AXIAL)), AXIAL)


def test_an_axial_series_is_upright_as_it_is() -> None:
    values = np.arange(24).reshape(2, 3, 4)
    turned, affine = upright(values, ras_from_lps(AXIAL))
    np.testing.assert_array_equal(turned, values)
    np.testing.assert_array_equal(affine, ras_from_lps(AXIAL))


def test_a_sagittal_series_is_turned_upright() -> None:
    affine = ras_from_lps(lps_affine((0, 0, 0), slice_step=(3, 0, 0), row_step=(0, 0, -1), column_step=(0, 2, 0)))
    values = np.arange(24).reshape(2, 3, 4)  # (right to left, head to foot, front to back)
    turned, moved = upright(values, affine)
    np.testing.assert_array_equal(turned, values.transpose(1, 2, 0)[::-1])
    np.testing.assert_allclose(moved @ [0, 0, 0, 1], affine @ [0, 2, 0, 1])
    assert spacing_of(moved) == pytest.approx((1, 2, 3))


def spans_a_volume(matrix: NDArray[np.float64]) -> bool:
    # The triple product: numpy's determinant takes logarithms, and warns where a pivot is as good as zero.
    return bool(abs(matrix[0] @ np.cross(matrix[1], matrix[2])) > 0.5)


@given(
    matrix=arrays.arrays(np.float64, (3, 3), elements=st.floats(-3, 3)).filter(spans_a_volume),
    origin=arrays.arrays(np.float64, 3, elements=st.floats(-200, 200)),
)
def test_turning_upright_moves_no_value_in_the_patient(
    matrix: NDArray[np.float64], origin: NDArray[np.float64]
) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    turned, moved = upright(values, affine)
    for place in np.ndindex(turned.shape):
        before = np.argwhere(values == turned[place])[0]
        np.testing.assert_allclose(moved @ [*place, 1], affine @ [*before, 1], atol=1e-9)
