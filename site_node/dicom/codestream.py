"""What compressed pixels say of themselves, compared with the header before anything is decoded.

A decoder makes room for what the compressed stream says, not for what the header says: a stream of some hundred bytes
can ask for terabytes. So each frame's own rows, columns and samples are read from its first bytes and must be the
header's. The same look finds what no decoder will read, without decoding: the index stays as fast as headers are.

Source: DICOM PS3.5 A.4 (encapsulated pixel data) and annex G (RLE); ITU-T T.81 B.2.2 and B.2.3 (JPEG), T.87 C.1 and C.2
(JPEG-LS), T.800 A.5.1 (JPEG 2000; HTJ2K shares it).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes, RLELossless

from site_node.errors import UnreadableError

HTJ2K = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
JPEG_START, JPEG_2000_START = b"\xff\xd8", b"\xff\x4f\xff\x51"
FIRST_LOOK_BYTES, SECOND_LOOK_BYTES = 4096, 1 << 18
MOST_FRAMES_LOOKED_AT = 1024
STARTS_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
START_OF_SCAN, SEQUENTIAL_EXTENDED, WHOLE_SPECTRUM = 0xDA, 0xC1, (0, 63)
RLE_ROOM = 2
"""RLE makes noise at most 1/128 longer; a frame of more than twice its size is no frame."""

CUT_SHORT = "damaged: the file ends in the middle of its pixels"
NOT_IN_ITEMS = "damaged: the compressed pixels do not lie in items, as they must"
FEWER_FRAMES = "damaged: there are fewer compressed frames than the header says"
NO_STREAM = "damaged: where a compressed frame should begin, there is none"
OTHER_SIZE = "damaged: a compressed frame has another size than the header says"
OTHER_SAMPLES = "damaged: a compressed frame has other samples for each pixel than the header says"
BAD_SCAN = "damaged: the JPEG's scan header is not as the standard wants it, and no installed decoder reads it"
TOO_LONG = "damaged: a compressed frame is longer than its pixels can be"


@dataclass(frozen=True)
class FrameForm:
    """What the header says of each frame, and how many there are."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    frames: int

    @property
    def frame_bytes(self) -> int:
        """Return the bytes that a decoded frame takes."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8


@dataclass(frozen=True)
class Fragment:
    """A piece of compressed pixels: where it begins in the file, and its length in bytes."""

    start: int
    length: int


def check_codestreams(file: BinaryIO, size: int, syntax: UID, form: FrameForm) -> None:
    """Refuse compressed pixels that are cut short or contradict the header; the file stands at the first item.

    At most `MOST_FRAMES_LOOKED_AT` frames are looked into; every item's length is.
    Raises: UnreadableError.
    """
    fragments = list(_fragments(file, size))[1:]  # the first is the table of offsets
    if len(fragments) < form.frames:
        raise UnreadableError(FEWER_FRAMES)
    for number, fragment in enumerate(fragments[:MOST_FRAMES_LOOKED_AT]):
        begins_a_frame = number == 0 or len(fragments) == form.frames
        if begins_a_frame:
            _check_frame(file, fragment, syntax, form, alone=len(fragments) == form.frames)


def _fragments(file: BinaryIO, size: int) -> Iterator[Fragment]:
    while True:
        head = file.read(8)
        if len(head) < 8 or head[:4] == DELIMITER:
            return  # some writers leave the delimiter out
        start, length = file.tell(), struct.unpack("<I", head[4:])[0]
        if head[:4] != ITEM:
            raise UnreadableError(NOT_IN_ITEMS)
        if start + length > size:
            raise UnreadableError(CUT_SHORT)
        yield Fragment(start, length)
        file.seek(start + length)


def _check_frame(file: BinaryIO, fragment: Fragment, syntax: UID, form: FrameForm, *, alone: bool) -> None:
    if syntax == RLELossless:
        _check_rle(_look(file, fragment, FIRST_LOOK_BYTES), form)
        if alone and fragment.length > RLE_ROOM * form.frame_bytes + FIRST_LOOK_BYTES:
            raise UnreadableError(TOO_LONG)
        return
    read = _reader_of(syntax)
    if read is None:
        return
    stated = read(_look(file, fragment, FIRST_LOOK_BYTES)) or read(_look(file, fragment, SECOND_LOOK_BYTES))
    if stated is None:
        raise UnreadableError(NO_STREAM)
    if stated[:2] != (form.rows, form.columns):
        raise UnreadableError(OTHER_SIZE)
    if stated[2] != form.samples:
        raise UnreadableError(OTHER_SAMPLES)


def _look(file: BinaryIO, fragment: Fragment, most: int) -> bytes:
    file.seek(fragment.start)
    return file.read(min(fragment.length, most))


def _reader_of(syntax: UID) -> Callable[[bytes], tuple[int, int, int] | None] | None:
    if syntax in JPEG2000TransferSyntaxes or syntax in HTJ2K:
        return _jpeg_2000
    if syntax in JPEGTransferSyntaxes or syntax in JPEGLSTransferSyntaxes:
        return _jpeg
    return None


def _check_rle(start: bytes, form: FrameForm) -> None:
    if form.bits_allocated == 1:
        raise UnreadableError("1-bit pixels compressed as 'RLE Lossless', which no installed decoder reads")
    if len(start) < 64:
        raise UnreadableError(NO_STREAM)
    if struct.unpack("<I", start[:4])[0] != form.samples * (form.bits_allocated // 8):
        raise UnreadableError(OTHER_SAMPLES)


def _jpeg_2000(start: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and samples of a JPEG 2000 stream, also of one inside a JP2 file."""
    at = start.find(JPEG_2000_START)
    if at < 0 or len(start) < at + 42:
        return None
    _, _, right, bottom, left, top, *_tiles, samples = struct.unpack(">HHIIIIIIIIH", start[at + 4 : at + 42])
    return bottom - top, right - left, samples


def _jpeg(start: bytes) -> tuple[int, int, int] | None:
    """Return rows, columns and samples of a JPEG or JPEG-LS stream.

    Raises: UnreadableError if its first scan is one that no decoder takes.
    """
    if not start.startswith(JPEG_START):
        return None
    stated: tuple[int, int, int] | None = None
    kind = 0
    for marker, content in _segments(start):
        if marker in STARTS_OF_FRAME and len(content) >= 6:
            _, rows, columns, samples = struct.unpack(">BHHB", content[:6])
            kind, stated = marker, (rows, columns, samples)
        if marker == START_OF_SCAN and kind == SEQUENTIAL_EXTENDED and content:
            spectrum = tuple(content[1 + 2 * content[0] : 3 + 2 * content[0]])
            if spectrum and spectrum != WHOLE_SPECTRUM:
                raise UnreadableError(BAD_SCAN)
        if marker == START_OF_SCAN:
            return stated
    return None


def _segments(start: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(JPEG_START)
    while at + 4 <= len(start) and start[at] == 0xFF:
        marker = start[at + 1]
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        length = struct.unpack(">H", start[at + 2 : at + 4])[0]
        yield marker, start[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
