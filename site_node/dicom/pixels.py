"""Decode one frame of a DICOM image into the grey picture that a network sees.

Source: DICOM PS3.3 C.7.6.3 (Image Pixel Module), C.11.1 (Modality LUT), C.7.6.16.2.9 (Pixel Value Transformation).
Convention: rescaled values (HU for CT), bright is dense: MONOCHROME1 is inverted within the image's own range. Colour
becomes luminance (ITU-R BT.601). Window and level are for display and are not applied.
Decoders: pydicom's own, pylibjpeg (JPEG, JPEG 2000, HTJ2K, RLE) and pyjpegls (JPEG-LS).
Before anything is decoded the file is checked as the index checks it, so that its pixels take no more room than is
accepted. An error keeps no cause: the library's own messages quote the header.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from site_node.dicom.functional_groups import functional_group
from site_node.dicom.headers import checked_header
from site_node.dicom.quiet import quiet
from site_node.errors import PixelsError, UnreadableError

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
REMEDY = "Open the image in a viewer; export it again from the archive, uncompressed if need be."

UNDECODABLE = "The pixels cannot be decoded: damaged, or of a kind no decoder reads."


def read_pixels(path: Path, frame: int | None = None) -> NDArray[np.float32]:
    """Read one frame of an image file as grey values; see `decode`.

    Raises: PixelsError if the file is gone or its pixels cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except OSError:
        raise PixelsError(
            "The image file cannot be opened.", "Check that the folder is mounted; index again."
        ) from None
    return decode(content, frame)


def decode(content: bytes, frame: int | None = None) -> NDArray[np.float32]:
    """Decode one frame of a DICOM file's bytes as grey values.

    Shapes: result (row, column) float32, contiguous, finite.
    Units: what the header's rescale says (HU for CT); stored values if it says nothing.
    Guarantee: no warning of the decoders leaks, and no exception other than the one below.
    Raises: PixelsError if the pixels cannot be decoded, are not finite, or there are several frames and none is named.
    """
    dataset = opened(content)
    return grey_frame(dataset, _index(dataset, frame))


def check_pixels(content: bytes) -> None:
    """Decode every frame of a DICOM file's bytes, one at a time, and keep none.

    Raises: PixelsError if one cannot be decoded.
    """
    dataset = opened(content)
    for index in range(frames_of(dataset)):
        grey_frame(dataset, index)


def opened(content: bytes) -> Dataset:
    """Return a DICOM file's bytes as a data set whose pixels are there, bounded and of a kind that can be decoded.

    Raises: PixelsError.
    """
    try:
        checked_header(BytesIO(content), len(content))
        with quiet():
            return pydicom.dcmread(BytesIO(content), force=True)
    except UnreadableError as error:
        raise PixelsError(f"The pixels cannot be decoded: {error.message}.", REMEDY) from None
    except Exception:
        raise PixelsError(UNDECODABLE, REMEDY) from None


def frames_of(dataset: Dataset) -> int:
    """Return the number of frames of an opened data set."""
    return max(1, int(dataset.get("NumberOfFrames") or 1))


def stored_frames(dataset: Dataset) -> Iterator[NDArray[Any]]:
    """Yield each frame's values as the DICOM library decodes them: no rescale, no palette, nothing inverted.

    Shapes: each (row, column) or (row, column, sample), in the stored type; YCbCr comes as RGB.
    Raises: PixelsError if a frame cannot be decoded.
    """
    for index in range(frames_of(dataset)):
        with _decoding():
            frame = _stored(dataset, index)
        yield frame


def rescaled_frame(dataset: Dataset, index: int) -> NDArray[np.float32]:
    """Return one frame of an opened grey data set as its modality means it: rescaled, and neither inverted nor cut.

    Shapes: result (row, column) float32. Units: what the header's rescale says (HU for CT). What the header calls
        padding (PS3.3 C.7.5.1.1.2) is NaN.
    Raises: PixelsError if it cannot be decoded, is in colour, or is not finite where it is no padding.
    """
    with _decoding():
        stored = _stored(dataset, index)
        if stored.ndim != 2 or str(dataset.PhotometricInterpretation) == "PALETTE COLOR":
            raise PixelsError("The image is in colour, and a volume has to be grey.", "Choose a grey series.")
        padding = _padding(stored, dataset)
        picture = _rescale(stored, dataset, index)
    if not np.isfinite(picture).all():
        raise PixelsError("The decoded pixels, after rescaling, are not all finite numbers.", REMEDY)
    if padding is not None:
        picture = np.where(padding, np.float32(np.nan), picture)
    return np.ascontiguousarray(picture)


def _stored(dataset: Dataset, index: int) -> NDArray[Any]:
    pixels, syntax = int(dataset.Rows) * int(dataset.Columns), dataset.file_meta.TransferSyntaxUID
    if int(dataset.BitsAllocated) != 1 or pixels % 8 == 0 or syntax.is_encapsulated or not syntax.is_little_endian:
        return np.asarray(pixel_array(dataset, index=index))
    # frames of single bits that do not fill whole bytes follow each other without a gap (PS3.5 8.1.1), and the library,
    # asked for one of them, returns too few
    first = index * pixels
    content = np.frombuffer(dataset.PixelData, np.uint8)[first // 8 : (first + pixels + 7) // 8]
    bits = np.unpackbits(content, bitorder="little")[first % 8 :][:pixels]
    return bits.reshape(int(dataset.Rows), int(dataset.Columns))


def _padding(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.bool_] | None:
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    ends = int(first), int(first if last is None else last)
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def grey_frame(dataset: Dataset, index: int) -> NDArray[np.float32]:
    """Return one frame of an opened data set as grey values; see `decode`."""
    with _decoding():
        picture = _grey(dataset, index)
    if picture.ndim != 2 or picture.size == 0:
        raise PixelsError("The decoded pixels are no picture of rows and columns.", REMEDY)
    if not np.isfinite(picture).all():
        raise PixelsError("The decoded pixels, after rescaling, are not all finite numbers.", REMEDY)
    return np.ascontiguousarray(picture)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        with quiet(), np.errstate(all="ignore"):  # what is not finite is refused by name afterwards
            yield
    except (PixelsError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException:  # decoders raise whatever a damaged file leads them to; one in Rust even what is no Exception
        raise PixelsError(UNDECODABLE, REMEDY) from None


def _index(dataset: Dataset, frame: int | None) -> int:
    frames = frames_of(dataset)
    if frame is None and frames > 1:
        raise PixelsError("The image holds several frames; one has to be named.", "Choose single-frame images.")
    if not 0 <= (frame or 0) < frames:
        raise PixelsError("The named frame is not in the image.", "Frames are counted from 0.")
    return frame or 0


def _grey(dataset: Dataset, index: int) -> NDArray[np.float32]:
    stored = _stored(dataset, index)
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
    transformation = functional_group(dataset, index, "PixelValueTransformationSequence")
    if transformation is None:
        return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float32)
    slope, intercept = float(transformation.RescaleSlope), float(transformation.RescaleIntercept)
    return np.asarray(stored * slope + intercept, dtype=np.float32)
