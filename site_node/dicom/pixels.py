"""Decode one frame of a DICOM image into the grey picture that a network sees.

Source: DICOM PS3.3 C.7.6.3 (Image Pixel Module), C.11.1 (Modality LUT), C.7.6.16.2.9 (Pixel Value Transformation).
Convention: rescaled values (HU for CT), bright is dense: MONOCHROME1 is inverted within the image's own range. Colour
becomes luminance (ITU-R BT.601). Window and level are for display and are not applied.
Decoders: pydicom's own, pylibjpeg (JPEG, JPEG 2000, HTJ2K, RLE) and pyjpegls (JPEG-LS).
"""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from site_node.errors import PixelsError

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
REMEDY = "Open the image in a viewer; export it again from the archive, uncompressed if need be."


def read_pixels(path: Path, frame: int | None = None) -> NDArray[np.float32]:
    """Read one frame of an image file as grey values; see `decode`.

    Raises: PixelsError if the file is gone or its pixels cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PixelsError(
            "The image file cannot be opened.", "Check that the folder is mounted; index again."
        ) from error
    return decode(content, frame)


def decode(content: bytes, frame: int | None = None) -> NDArray[np.float32]:
    """Decode one frame of a DICOM file's bytes as grey values.

    Shapes: result (row, column) float32, contiguous, finite.
    Units: what the header's rescale says (HU for CT); stored values if it says nothing.
    Guarantee: no warning of the decoders leaks, and no exception other than the one below.
    Raises: PixelsError if the pixels cannot be decoded, are not finite, or there are several frames and none is named.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(BytesIO(content), force=True)
            picture = _grey(dataset, _index(dataset, frame))
    except PixelsError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise PixelsError("The pixels cannot be decoded: damaged, or of a kind no decoder reads.", REMEDY) from error
    if picture.ndim != 2 or picture.size == 0:
        raise PixelsError("The decoded pixels are no picture of rows and columns.", REMEDY)
    if not np.isfinite(picture).all():
        raise PixelsError("The decoded pixels, after rescaling, are not all finite numbers.", REMEDY)
    return np.ascontiguousarray(picture)


def _index(dataset: Dataset, frame: int | None) -> int:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frame is None and frames > 1:
        raise PixelsError("The image holds several frames; one has to be named.", "Choose single-frame images.")
    if not 0 <= (frame or 0) < frames:
        raise PixelsError("The named frame is not in the image.", "Frames are counted from 0.")
    return frame or 0


def _grey(dataset: Dataset, index: int) -> NDArray[np.float32]:
    stored = pixel_array(dataset, index=index)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return _luminance(stored)
    picture = _rescale(stored, dataset, index)
    if photometric == "MONOCHROME1":
        picture = picture.max() + picture.min() - picture
    return picture


def _luminance(colour: NDArray[Any]) -> NDArray[np.float32]:
    if colour.shape[-1] < LUMINANCE.size:
        return colour[..., 0].astype(np.float32)
    grey: NDArray[np.float32] = colour[..., : LUMINANCE.size].astype(np.float32) @ LUMINANCE
    return grey


def _rescale(stored: NDArray[Any], dataset: Dataset, index: int) -> NDArray[np.float32]:
    transformation = _pixel_value_transformation(dataset, index)
    if transformation is None:
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    slope, intercept = float(transformation.RescaleSlope), float(transformation.RescaleIntercept)
    return np.asarray(stored * slope + intercept, dtype=np.float32)


def _pixel_value_transformation(dataset: Dataset, index: int) -> Dataset | None:
    """Return the item that rescales this frame of an enhanced multi-frame image, or None."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[index : index + 1], *shared):
        items = group.get("PixelValueTransformationSequence")
        if items:
            return items[0]
    return None
