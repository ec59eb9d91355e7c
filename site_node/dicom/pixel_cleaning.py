"""Blank what is burnt into the pixels of a de-identified copy, or refuse the copy.

Source: DICOM PS3.15 E.3.1 (Clean Pixel Data Option); PS3.3 C.7.6.1.1 (Burned In Annotation), C.8.6.1 (SC Equipment),
C.8.5.5 (US Region Calibration), C.9.2 (overlays in the unused bits of pixel data, retired).
Convention: a picture is searched if its header gives a reason to (`reason_to_look`) or the policy says every one. Of an
ultrasound picture that tells where its regions are, everything outside them is blanked. Faces are not looked for.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from site_node.dicom.burnt_in import Box, text_lines
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.dicom.deidentification_report import Report
from site_node.dicom.element_value import first_value, whole_number
from site_node.errors import DeidentificationError

AT_RISK = frozenset({"US", "IVUS", "OT", "SC", "XC", "ES", "GM", "DG", "DOC", "HC", "TG"})
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SCREENS = ("SCREEN", "DOSE_INFO", "DOSE INFO", "REPORT")
MOST_PASSES = 8  # what is blanked changes how bright the rest looks: once more, until nothing more is found
Pixels = NDArray[np.generic]

LOOKED_AT, BLANKED = "searched for burnt-in text", "burnt-in text blanked"
OUTSIDE_BLANKED = "everything outside the ultrasound regions blanked"
OVERLAY_BITS = "overlay bits in the pixel data cleared"


def reason_to_look(source: Dataset) -> str | None:
    """Return why a picture may have text in its pixels, by what its header says; None if nothing does."""
    if str(first_value(source, "BurnedInAnnotation") or "").strip().upper() == "YES":
        return "its header says that text is burnt in"
    if str(first_value(source, "Modality") or "").strip().upper() in AT_RISK:
        return "pictures of its modality often show names"
    if str(source.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) or "ConversionType" in source:
        return "it is a secondary capture"
    if "SequenceOfUltrasoundRegions" in source:
        return "it is an ultrasound picture"
    kinds = str(source.get("ImageType", "")).upper()
    return "it is a picture of a screen" if any(word in kinds for word in SCREENS) else None


def clean_pixels(copy: Dataset, source: Dataset, policy: DeidentificationPolicy, report: Report) -> bool:
    """Search a copy's pixels and blank the text in them; tell whether they were searched.

    `source` is the original, whose header says where to look. Pixels are changed only where there is something to
    blank; then they are stored uncompressed.
    Raises: DeidentificationError if there is text and the policy refuses it, if the header says that there is text and
        none is found, or if the pixels cannot be searched though there is a reason to.
    """
    _clear_overlay_bits(copy, source, report)
    reason = reason_to_look(source)
    if reason is None and policy.look_at != "everything":
        return False
    try:
        pixels = pixel_array(copy)
        frames = _frames(pixels, copy)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        if reason is None:
            return False
        raise DeidentificationError(f"its pixels cannot be searched for text, and {reason}") from error
    report.remark(LOOKED_AT)
    blank = _outside_of_regions(source, frames[0].shape[:2])
    if blank is not None:
        report.remark(OUTSIDE_BLANKED)
    found = _search(frames, copy, np.zeros(frames[0].shape[:2], dtype=np.bool_) if blank is None else blank)
    if found.any() and policy.burnt_in_text == "refuse":
        raise DeidentificationError("text is burnt into its pixels, and the policy refuses such pictures")
    whole = found if blank is None else found | blank
    if whole.any():
        if found.any():
            report.remark(BLANKED)
        _store(copy, _blanked(frames, whole, copy), pixels.dtype)
    elif str(first_value(source, "BurnedInAnnotation") or "").strip().upper() == "YES":
        raise DeidentificationError("its header says that text is burnt in, and none was found to blank")
    return True


def _frames(pixels: Pixels, copy: Dataset) -> Pixels:
    """Return the frames with their axis first, also of a single one."""
    return pixels if whole_number(copy, "NumberOfFrames", 1) > 1 else pixels[np.newaxis]


def _shown(frames: Pixels, copy: Dataset) -> Iterator[Pixels]:
    """Yield each frame as a person sees it, as far as colour goes: a palette's numbers are no shades."""
    palette = copy.get("PhotometricInterpretation") == "PALETTE COLOR"
    for frame in frames:
        yield apply_color_lut(frame, copy) if palette else frame


def _search(frames: Pixels, copy: Dataset, blank: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where text is, over all frames, beside what is blanked anyhow.

    Shapes: blank and result (row, column).
    """
    marks = np.zeros_like(blank)
    for _ in range(MOST_PASSES):
        before = marks.copy()
        for picture in _shown(_blanked(frames, blank | before, copy), copy):
            for line in text_lines(picture):
                top, left, bottom, right = with_margin(line.box, picture.shape)
                marks[top:bottom, left:right] = True
        if np.array_equal(marks, before):
            break
    return marks


def with_margin(box: Box, shape: tuple[int, ...]) -> Box:
    """Widen a line by two or three letters on both sides, where some may have been missed, and a little up and down."""
    top, left, bottom, right = box
    height = bottom - top
    above, beside = max(2, height // 3), 2 * height
    return max(0, top - above), max(0, left - beside), min(shape[0], bottom + above), min(shape[1], right + beside)


def _outside_of_regions(source: Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return what lies outside of every ultrasound region; None if no region lies wholly in the picture."""
    outside = np.ones(shape, dtype=np.bool_)
    for region in source.get("SequenceOfUltrasoundRegions") or []:
        try:
            left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
            right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
        except Exception:  # noqa: S112 - a region that does not say where it is protects nothing
            continue
        if 0 <= left < right < shape[1] + 1 and 0 <= top < bottom < shape[0] + 1:
            outside[top : bottom + 1, left : right + 1] = False
    return None if outside.all() else outside


def _blanked(frames: Pixels, where: NDArray[np.bool_], copy: Dataset) -> Pixels:
    if not where.any():
        return frames
    changed = frames.copy()
    inverted = copy.get("PhotometricInterpretation") == "MONOCHROME1"
    changed[:, where] = frames.max() if inverted else frames.min()
    return changed


def _store(copy: Dataset, frames: Pixels, kind: np.dtype[np.generic]) -> None:
    """Write pixels back, uncompressed; what was YBR was decoded to RGB."""
    several = whole_number(copy, "NumberOfFrames", 1) > 1
    photometric = str(copy.PhotometricInterpretation)
    if frames.ndim == 4 or (photometric.startswith("YBR") and frames.shape[-1] == 3):
        photometric = "RGB"
    try:
        copy.set_pixel_data(
            np.ascontiguousarray(frames if several else frames[0]).astype(kind),
            photometric,
            int(copy.BitsStored),
            generate_instance_uid=False,
        )
    except Exception as error:
        raise DeidentificationError("its pixels are of a kind that cannot be written after blanking") from error
    if not copy.file_meta.TransferSyntaxUID.is_little_endian:
        copy.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if "ImageType" in copy and copy["ImageType"].VM > 1:
        copy.ImageType = ["DERIVED", *list(copy.ImageType)[1:]]


def _clear_overlay_bits(copy: Dataset, source: Dataset, report: Report) -> None:
    """Clear bits beside the stored ones where the header says that overlays lie in them."""
    groups = range(0x6000, 0x6020, 2)
    allocated = [source.get(Tag(group, 0x0100)) for group in groups]
    inside = any(e is not None and e.value not in (None, "", 1) for e in allocated)
    if not inside or "PixelData" not in copy:
        return
    bits, stored = whole_number(copy, "BitsAllocated", 0), whole_number(copy, "BitsStored", 0)
    if bits != 16 or not 0 < stored < bits:
        return
    if copy.file_meta.TransferSyntaxUID.is_compressed:
        raise DeidentificationError("overlays lie in the unused bits of its compressed pixels")
    above = bits - 1 - whole_number(copy, "HighBit", stored - 1)
    signed, little = copy.get("PixelRepresentation") == 1, copy.file_meta.TransferSyntaxUID.is_little_endian
    kind = np.dtype(("<" if little else ">") + ("i2" if signed else "u2"))
    values = np.frombuffer(copy.PixelData, dtype=kind)
    # up to the sign and down again: a shift to the right fills with the sign, or with noughts
    copy.PixelData = (((values << above) >> (bits - stored)) << (bits - stored - above)).astype(kind).tobytes()
    report.remark(OVERLAY_BITS)
