"""Volumes: the slices' own values in their own units, each in its place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from site_node.dicom import series
from site_node.dicom.folder import examine
from site_node.dicom.volume import CHANGED, NO_FILE, read_volume, stack_of
from site_node.dicom.volume_tilt import straightened
from site_node.errors import PixelsError, SeriesError, UnreadableError
from tests.fakes.dicom import save
from tests.fakes.series import ORIGIN, body, enhanced, positions_of, saved, series_of, slice_of


def test_a_series_becomes_a_volume_in_hounsfield_units(tmp_path: Path) -> None:
    volume = read_volume(saved(series_of(body(), positions_of(4)), tmp_path))
    np.testing.assert_array_equal(volume.values, body() - 1024.0)
    assert volume.values.dtype == np.float32
    assert volume.unit == "HU"
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.5))
    # slice 3, row 2, column 4 lies in LPS at (-10 + 4 * 0.5, -20 + 2 * 0.8, 30 + 3 * 2.5)
    np.testing.assert_allclose(volume.affine @ [3, 2, 4, 1], [8, 18.4, 37.5, 1])


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    paths = saved(series_of(body(), positions_of(4)), tmp_path)
    forwards, backwards = read_volume(paths), read_volume(paths[::-1])
    np.testing.assert_array_equal(forwards.values, backwards.values)
    np.testing.assert_array_equal(forwards.affine, backwards.affine)


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    slices = series_of(body(), positions_of(4))
    for number, dataset in enumerate(slices):
        dataset.RescaleSlope = str(number + 1)
    expected = body() * np.arange(1, 5).reshape(4, 1, 1) - 1024.0
    np.testing.assert_array_equal(read_volume(saved(slices, tmp_path)).values, expected)


def test_each_frame_of_an_enhanced_image_has_its_own_rescale_and_place(tmp_path: Path) -> None:
    dataset = enhanced(body(), positions_of(4)[::-1], slopes=[4, 3, 2, 1])
    volume = read_volume([save(dataset, tmp_path / "enhanced.dcm")])
    expected = (body() * np.array([4, 3, 2, 1]).reshape(4, 1, 1) - 1024.0)[::-1]
    np.testing.assert_array_equal(volume.values, expected)
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1], [10, 20, 30, 1])
    assert volume.unit == "HU"


def test_a_window_in_the_header_changes_nothing(tmp_path: Path) -> None:
    slices = series_of(body(), positions_of(4), WindowCenter="40", WindowWidth="80")
    np.testing.assert_array_equal(read_volume(saved(slices, tmp_path)).values, body() - 1024.0)


def test_padding_takes_the_lowest_value_of_the_rest(tmp_path: Path) -> None:
    values = body()
    values[:, 0, :] = -2000
    slices = series_of(values, positions_of(4), PixelPaddingValue=-2000)
    volume = read_volume(saved(slices, tmp_path))
    np.testing.assert_array_equal(volume.values[:, 0, :], 10 - 1024)
    np.testing.assert_array_equal(volume.values[:, 1:, :], body()[:, 1:, :] - 1024.0)


def test_monochrome1_is_inverted_within_the_whole_volume(tmp_path: Path) -> None:
    slices = series_of(body(), positions_of(4), PhotometricInterpretation="MONOCHROME1")
    values = read_volume(saved(slices, tmp_path)).values
    np.testing.assert_array_equal(values, body().min() + body().max() - body() - 1024.0)


def test_without_a_stated_unit_values_are_called_unspecified(tmp_path: Path) -> None:
    assert read_volume(saved(series_of(body(), positions_of(4), Modality="MR"), tmp_path)).unit == "US"


def test_slices_in_different_units_make_no_volume(tmp_path: Path) -> None:
    slices = series_of(body(), positions_of(4))
    slices[1].RescaleType = "OD"
    with pytest.raises(SeriesError) as caught:
        stack_of(saved(slices, tmp_path))
    assert caught.value.message == series.UNITS_DIFFER


def test_a_volume_that_is_too_large_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "MOST_VOLUME_BYTES", 4 * 6 * 5 * 4 - 1)
    with pytest.raises(SeriesError) as caught:
        stack_of(saved(series_of(body(), positions_of(4)), tmp_path))
    assert caught.value.message == series.TOO_LARGE


def test_a_file_that_is_gone_or_changed_is_said(tmp_path: Path) -> None:
    paths = saved(series_of(body(), positions_of(4)), tmp_path)
    stack = stack_of(paths)
    save(slice_of(body(1, 7, 5)[0], ORIGIN, "0"), paths[0])
    with pytest.raises(SeriesError, match=CHANGED):
        read_volume(paths, stack)
    paths[0].unlink()
    for known in (stack, None):
        with pytest.raises(SeriesError, match=NO_FILE):
            read_volume(paths, known)


def test_colour_and_padding_alone_make_no_volume(tmp_path: Path) -> None:
    colour = series_of(np.zeros((2, 4, 4, 3), np.uint8), positions_of(2))
    with pytest.raises(SeriesError, match="in colour"):
        stack_of(saved(colour, tmp_path / "colour"))
    padding = series_of(np.zeros((2, 4, 4), np.int16), positions_of(2), PixelPaddingValue=0)
    with pytest.raises(PixelsError, match="padding"):
        read_volume(saved(padding, tmp_path / "padding"))


def test_a_tilted_volume_is_made_upright(tmp_path: Path) -> None:
    # tan(tilt) * 2.5 mm is one row of 0.8 mm: each slice is moved by whole rows, so the result is exact
    tilt = float(np.degrees(np.arctan(0.8 / 2.5)))
    upright = np.zeros((3, 8, 5), np.int16)
    upright[:, 3, 2] = 500  # a line along the normal
    aslant = np.stack([np.roll(picture, -number, axis=0) for number, picture in enumerate(upright)])
    volume = read_volume(saved(series_of(aslant, positions_of(3, tilt_degrees=tilt)), tmp_path))
    assert volume.tilt_degrees == pytest.approx(tilt, abs=0.01)
    straight = straightened(volume)
    np.testing.assert_allclose(straight.values, upright - 1024.0, atol=0.01)
    np.testing.assert_allclose(straight.affine[:3, 0], [0, 0, 2.5], atol=1e-5)
    assert straight.tilt_degrees == 0
    assert straightened(straight) is straight


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_slice_leads_to_another_exception(tmp_path: Path, data: st.DataObject) -> None:
    paths = saved(series_of(body(3), positions_of(3)), tmp_path)
    content = bytearray(paths[1].read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    paths[1].write_bytes(content)
    assert_read_or_refused(paths)


def assert_read_or_refused(paths: list[Path]) -> Any:
    try:
        volume = read_volume(paths)
    except UnreadableError:
        return None
    assert np.isfinite(volume.values).all()
    return volume


SHARED = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"


@pytest.mark.shared
def test_the_odd_series_become_volumes_or_have_a_reason() -> None:
    by_series: dict[str, list[Path]] = {}
    for path in sorted(SHARED.rglob("*")):
        header = examine(path).header if path.is_file() else None
        if header is not None:
            by_series.setdefault(str(header.series_instance_uid), []).append(path)
    volumes = [assert_read_or_refused(paths) for paths in by_series.values()]
    assert sum(volume is not None for volume in volumes) == 9
