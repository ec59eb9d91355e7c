"""A deflated DICOM file measured before it is inflated: a megabyte can hold a gigabyte of zeros.

Source: DICOM PS3.10 section 7.1 (file meta information, always explicit little endian), PS3.5 A.5 (deflated).
"""

import re
import struct
import zlib
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from site_node.errors import UnreadableError

MOST_INFLATED_BYTES = 1 << 29
PIECE_BYTES = 1 << 20
META_START = 132
LONG_LENGTH = frozenset({b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN"})
USUAL_META_BYTES, MOST_META_BYTES = 1 << 11, 1 << 16
LONGEST_HEADER_BYTES = 12
VR = re.compile(rb"[A-Z]{2}")
NOT_INFLATABLE = "damaged: the deflated content cannot be inflated"


def check_inflated_size(file: BinaryIO) -> None:
    """Refuse a deflated file that inflates to more than is accepted; any other file is left alone.

    Guarantee: never holds more than two pieces of a megabyte.
    Raises: UnreadableError.
    """
    file.seek(0)
    start = file.read(USUAL_META_BYTES)
    begin = _end_of_meta(start)
    if begin + LONGEST_HEADER_BYTES > len(start):  # few files have so much
        start += file.read(MOST_META_BYTES)
        begin = _end_of_meta(start)
    if str(DeflatedExplicitVRLittleEndian).encode() not in start[:begin]:
        return
    file.seek(begin)
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while not inflater.eof and (piece := inflater.unconsumed_tail or file.read(PIECE_BYTES)):
            inflated += len(inflater.decompress(piece, PIECE_BYTES))
            if inflated > MOST_INFLATED_BYTES:
                raise UnreadableError(f"inflates to more than {MOST_INFLATED_BYTES >> 20} MiB, the most accepted")
    except zlib.error:
        raise UnreadableError(NOT_INFLATABLE) from None
    if not inflater.eof:
        raise UnreadableError(NOT_INFLATABLE)


def _end_of_meta(start: bytes) -> int:
    at = META_START
    while start[at : at + 2] == b"\x02\x00" and VR.fullmatch(start[at + 4 : at + 6]):
        if start[at + 4 : at + 6] in LONG_LENGTH:
            length = struct.unpack("<I", start[at + 8 : at + 12].ljust(4, b"\0"))[0]
            at += 12 + length
        else:
            at += 8 + struct.unpack("<H", start[at + 6 : at + 8].ljust(2, b"\0"))[0]
    return at
