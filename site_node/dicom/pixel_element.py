"""Whether a file's pixel data is there, complete and decodable: rules on the header, in words of an administrator.

Source: DICOM PS3.3 C.7.6.3 (Image Pixel Module), PS3.5 section 8 and A.4 (native and encapsulated pixel data).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from site_node.dicom.codestream import CUT_SHORT, FrameForm, check_codestreams
from site_node.dicom.element_value import first_value, whole_number
from site_node.errors import UnreadableError

PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
UNDEFINED_LENGTH = 0xFFFFFFFF
MAX_FRAME_PIXELS = 1 << 27
MAX_FRAME_BYTES = 1 << 29
MAX_IMAGE_BYTES = 1 << 32
BITS_ALLOCATED = (1, 8, 16, 32, 64)
MAX_SAMPLES = 4
LONG_HEADER_BYTES, SHORT_HEADER_BYTES = 12, 8
NEWER_SYNTAXES = {
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
"""Of the standard (PS3.6 A.1), and not yet known to the DICOM library by name."""
REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
WHAT_IT_IS = (
    ("SR Storage", "a structured report"),
    ("SR Storage - Trial", "a structured report"),
    ("Presentation State", "a presentation state"),
    ("RT Plan", "a radiotherapy plan"),
    ("RT Ion Plan", "a radiotherapy plan"),
    ("RT Structure Set", "a radiotherapy structure set"),
    ("Waveform", "a waveform"),
    ("Encapsulated", "a document"),
    ("Key Object Selection", "a list of key images"),
)


@dataclass(frozen=True)
class PixelElement:
    """The header of a pixel data element: its tag, its VR (None if implicit) and its length in bytes."""

    tag: int
    vr: str | None
    length: int


def check_is_image(dataset: Dataset, element: PixelElement | None) -> None:
    """Refuse an object without pixels, saying what it is instead.

    Raises: UnreadableError.
    """
    if element is None:
        raise UnreadableError(_no_pixels(dataset))
    if element.length == 0:
        raise UnreadableError("no pixels: the pixel data element is empty")


def check_pixels_can_be_read(dataset: Dataset, syntax: UID, element: PixelElement, remaining: int | None) -> FrameForm:
    """Refuse pixel data that is undescribed, cut short, too large or in a compression that no decoder reads.

    `remaining` is the number of bytes from the element's first one to the end of the file, None if it is not known.
    Guarantee: what is not refused takes at most `MAX_FRAME_BYTES` for a decoded frame, `MAX_IMAGE_BYTES` for all.
    Raises: UnreadableError.
    """
    missing = [keyword for keyword in REQUIRED if first_value(dataset, keyword) in (None, "")]
    if missing:
        raise UnreadableError(f"the header lacks what describes the pixels: {', '.join(missing)}")
    form = _form(dataset)
    _check_decoder(syntax)
    header_bytes = header_bytes_of(element)
    if remaining is not None and element.length != UNDEFINED_LENGTH and element.length > remaining - header_bytes:
        raise UnreadableError(CUT_SHORT)
    bits = form.rows * form.columns * form.frames * form.samples * form.bits_allocated
    if first_value(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3
    if not syntax.is_compressed and element.length < (bits + 7) // 8:
        raise UnreadableError("damaged: there are fewer pixels than rows, columns and frames say")
    return form


def check_compressed_frames(file: BinaryIO, size: int, syntax: UID, element: PixelElement, form: FrameForm) -> None:
    """Refuse compressed pixels whose frames contradict the header; the file stands at the pixel data element.

    Raises: UnreadableError.
    """
    if element.length != UNDEFINED_LENGTH:
        raise UnreadableError("damaged: the pixels are said to be compressed, and are not written so")
    file.seek(file.tell() + header_bytes_of(element))
    check_codestreams(file, size, syntax, form)


def header_bytes_of(element: PixelElement) -> int:
    """Return how many bytes an element's tag, VR and length take (PS3.5 7.1.2)."""
    return LONG_HEADER_BYTES if element.vr in ("OB", "OW", "OF", "OD", "UN") else SHORT_HEADER_BYTES


def _form(dataset: Dataset) -> FrameForm:
    form = FrameForm(
        rows=whole_number(dataset, "Rows", 0),
        columns=whole_number(dataset, "Columns", 0),
        samples=whole_number(dataset, "SamplesPerPixel", 1),
        bits_allocated=whole_number(dataset, "BitsAllocated", 0),
        frames=max(1, whole_number(dataset, "NumberOfFrames", 1)),
    )
    if form.rows < 1 or form.columns < 1:
        raise UnreadableError("the header gives the image no rows or no columns")
    if form.bits_allocated not in BITS_ALLOCATED or not 1 <= form.samples <= MAX_SAMPLES:
        raise UnreadableError("damaged: the header gives a pixel a number of bits or samples that no image has")
    if form.rows * form.columns > MAX_FRAME_PIXELS:
        raise UnreadableError(f"a frame has more than {MAX_FRAME_PIXELS} pixels, the most that is accepted")
    if form.frame_bytes > MAX_FRAME_BYTES:
        raise UnreadableError(f"a frame takes more than {MAX_FRAME_BYTES >> 20} MiB, the most that is accepted")
    if form.frame_bytes * form.frames > MAX_IMAGE_BYTES:
        raise UnreadableError(f"all frames take more than {MAX_IMAGE_BYTES >> 30} GiB, the most that is accepted")
    return form


def _check_decoder(syntax: UID) -> None:
    problem = _problem_of(syntax)
    if problem is not None:
        raise UnreadableError(problem)


@lru_cache(maxsize=256)
def _problem_of(syntax: UID) -> str | None:
    """Say why pixels in a transfer syntax cannot be decoded here; None if they can."""
    if not syntax:
        return "the file does not say how it is encoded (no transfer syntax)"
    if syntax.name == str(syntax) and syntax not in NEWER_SYNTAXES:
        return "encoded in a way that is unknown or private to a manufacturer (transfer syntax)"
    try:
        available = get_decoder(syntax).is_available
    except RuntimeError:  # how pydicom says that it knows no decoder at all
        available = False
    if not available:
        return f"compressed as '{NEWER_SYNTAXES.get(syntax, syntax.name)}', which no installed decoder reads"
    return None


def _no_pixels(dataset: Dataset) -> str:
    uid = first_value(dataset, "SOPClassUID")
    if not uid:
        return "no pixels, and the header does not say what the object is"
    name = UID(str(uid)).name
    if name == str(uid):
        return "no pixels: an object of a kind that is private to a manufacturer or unknown"
    if "Image Storage" in name:
        return f"no pixels, though it calls itself '{name}': cut short, or its pixels were removed"
    for mark, words in WHAT_IT_IS:
        if mark in name:
            return f"no pixels: {words} ('{name}')"
    return f"no pixels: '{name}' is no image"
