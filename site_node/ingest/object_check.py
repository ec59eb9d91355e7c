"""Whether what was sent is what it was announced as, and whole: reasons in words of an administrator, none of DICOM's.

Nothing here asks for pixels: a report or a plan is a good object. What cannot be trained on is the index's to say.
Source: DICOM PS3.4 B.2.3 (C-STORE), PS3.5 section 7 (encoding) and A.5 (deflated).
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import data_element_generator
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.dicom.pixel_element import PIXEL_TAGS, UNDEFINED_LENGTH

EMPTY = "the object came without content"
OTHER_INSTANCE = "its own SOP instance UID is not the one it was sent under"
OTHER_CLASS = "its own SOP class is not the one it was sent under"
NOT_PARSED = "damaged: the DICOM header cannot be parsed"
CUT_SHORT = "damaged: it ends in the middle of an element"
PIXELS_CUT_SHORT = "damaged: it ends in the middle of its pixels"
NOT_INFLATED = "damaged: its deflated content cannot be inflated"
INFLATES_TOO_FAR = "its deflated content inflates to more than the most that is accepted"

SOP_CLASS_TAG, SOP_INSTANCE_TAG = 0x00080016, 0x00080018
DEFER_BYTES = 1 << 16
INFLATE_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Announced:
    """What a sender said of an object before it came."""

    class_uid: str
    instance_uid: str
    syntax: str


def fault_of(path: Path, head_bytes: int, announced: Announced, max_bytes: int) -> str | None:
    """Say what is wrong with a received file, or None if nothing is.

    `head_bytes` is where the object's own bytes begin. The library's warnings are the caller's to silence.
    Guarantee: no exception, and no word of the object in the answer.
    """
    size = path.stat().st_size
    if size <= head_bytes:
        return EMPTY
    try:
        with path.open("rb") as file:
            file.seek(head_bytes)
            if announced.syntax == DeflatedExplicitVRLittleEndian:
                return _inflation_fault(file, max_bytes)
            return _fault(file, size, announced)
    except Exception:  # pydicom raises whatever a damaged object leads it to
        return NOT_PARSED


def _fault(file: BinaryIO, size: int, announced: Announced) -> str | None:
    syntax = UID(announced.syntax)
    known = syntax.is_transfer_syntax and not syntax.is_private  # else: explicit little endian, PS3.5 A.4
    implicit = syntax == ImplicitVRLittleEndian
    own: dict[int, str] = {}
    pixels: list[str] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            pixels.append("" if _fits(file.tell(), length, size) else PIXELS_CUT_SHORT)  # told at the value
        return tag in PIXEL_TAGS

    little = syntax.is_little_endian if known else True
    elements = 0
    for element in data_element_generator(file, implicit, little, at_pixels, DEFER_BYTES):
        elements += 1
        length = getattr(element, "length", UNDEFINED_LENGTH)  # what is parsed already has none
        if not _fits(getattr(element, "value_tell", 0), length, size):
            return CUT_SHORT
        if element.tag in (SOP_CLASS_TAG, SOP_INSTANCE_TAG):
            own[int(element.tag)] = bytes(element.value or b"").decode("ascii", "replace").strip("\0 ")
    if not elements and not pixels:
        return NOT_PARSED
    if own.get(SOP_INSTANCE_TAG, announced.instance_uid) not in ("", announced.instance_uid):
        return OTHER_INSTANCE
    if own.get(SOP_CLASS_TAG, announced.class_uid) not in ("", announced.class_uid):
        return OTHER_CLASS
    return (pixels or [""])[0] or None


def _fits(start: int, length: int, size: int) -> bool:
    return length == UNDEFINED_LENGTH or start + length <= size


def _inflation_fault(file: BinaryIO, max_bytes: int) -> str | None:
    inflating, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not inflating.eof and (data := inflating.unconsumed_tail or file.read(INFLATE_CHUNK_BYTES)):
            total += len(inflating.decompress(data, INFLATE_CHUNK_BYTES))
            if total > max_bytes:
                return INFLATES_TOO_FAR
        inflating.flush()  # what the last piece left inside, at most a window
    except zlib.error:
        return NOT_INFLATED
    return None if inflating.eof else NOT_INFLATED
