"""Pixels: rescaled, inverted, made grey, decoded from each kind of compression, refused in one way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from site_node.dicom.pixels import read_pixels
from site_node.errors import PixelsError
from tests.fakes.dicom import make_dataset, save

PIXELS = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
LARGER = np.random.default_rng(1).integers(0, 255, (64, 48), dtype=np.uint8)


def pixels_of(dataset: Dataset, folder: Path, **arguments: Any) -> Any:
    return read_pixels(save(dataset, folder / "a.dcm"), **arguments)


def test_grey_pixels_come_as_float32_rows_and_columns(tmp_path: Path) -> None:
    picture = pixels_of(make_dataset(PIXELS), tmp_path)
    assert picture.dtype == np.float32
    assert picture.flags.c_contiguous
    np.testing.assert_array_equal(picture, PIXELS)


def test_rescale_is_applied_to_signed_pixels(tmp_path: Path) -> None:
    stored = (PIXELS.astype(np.int16) - 100) * 10
    picture = pixels_of(make_dataset(stored, RescaleSlope="2", RescaleIntercept="-1024"), tmp_path)
    np.testing.assert_array_equal(picture, stored * 2.0 - 1024)


def test_monochrome1_is_inverted_within_its_own_range(tmp_path: Path) -> None:
    picture = pixels_of(make_dataset(PIXELS + 10, PhotometricInterpretation="MONOCHROME1"), tmp_path)
    np.testing.assert_array_equal(picture, (PIXELS + 10)[::-1, ::-1])


def test_colour_becomes_luminance(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[..., 0] = 100
    np.testing.assert_allclose(pixels_of(make_dataset(red), tmp_path), 29.9, rtol=1e-6)


def test_palette_colour_becomes_luminance(tmp_path: Path) -> None:
    table = (np.arange(256, dtype=np.uint16) * 257).tobytes()
    headers: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        headers[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        headers[f"{colour}PaletteColorLookupTableData"] = table
    picture = pixels_of(make_dataset(PIXELS, **headers), tmp_path)
    np.testing.assert_allclose(picture, PIXELS * 257.0, rtol=1e-5)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_compression_without_loss_gives_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    dataset = make_dataset(LARGER)
    dataset.compress(syntax)
    np.testing.assert_array_equal(pixels_of(dataset, tmp_path), LARGER)


def test_of_several_frames_one_has_to_be_named(tmp_path: Path) -> None:
    dataset = make_dataset(PIXELS, NumberOfFrames=2, PixelData=PIXELS.tobytes() + (255 - PIXELS).tobytes())
    with pytest.raises(PixelsError, match="several frames"):
        pixels_of(dataset, tmp_path)
    np.testing.assert_array_equal(pixels_of(dataset, tmp_path, frame=1), 255 - PIXELS)
    with pytest.raises(PixelsError, match="not in the image"):
        pixels_of(dataset, tmp_path, frame=2)


def test_each_frame_of_an_enhanced_image_has_its_own_rescale(tmp_path: Path) -> None:
    groups = []
    for slope in ("1", "3"):
        transformation, group = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, "5"
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    dataset = make_dataset(PIXELS, NumberOfFrames=2, PixelData=PIXELS.tobytes() * 2)
    dataset.PerFrameFunctionalGroupsSequence = groups
    np.testing.assert_array_equal(pixels_of(dataset, tmp_path, frame=1), PIXELS * 3.0 + 5)


def test_damaged_and_missing_files_are_refused_alike(tmp_path: Path) -> None:
    dataset = make_dataset(LARGER)
    dataset.compress(JPEG2000Lossless)
    path = save(dataset, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    for broken in (path, tmp_path / "gone.dcm"):
        with pytest.raises(PixelsError):
            read_pixels(broken)


def test_a_rescale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(PIXELS, RescaleIntercept="0", RescaleSlope="1e400")
    with pytest.raises(PixelsError):
        pixels_of(dataset, tmp_path)


def test_an_error_names_no_file(tmp_path: Path) -> None:
    with pytest.raises(PixelsError) as caught:
        read_pixels(tmp_path / "PATIENT-7.dcm")
    assert "PATIENT-7" not in str(caught.value)
