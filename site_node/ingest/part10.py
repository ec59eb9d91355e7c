"""A whole DICOM file as bytes, taken apart into what it is announced to be and the data set's own bytes.

Source: DICOM PS3.10 section 7.1 (file meta information).
"""

import struct
from io import BytesIO

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from site_node.dicom.quiet import quiet
from site_node.ingest.answers import FoundInstance
from site_node.ingest.object_check import Announced
from site_node.ingest.pacs import Arrived

PREFIX_END = 132
META_GROUP = 0x0002


def arrived_from(data: bytes, expected: FoundInstance) -> Arrived:
    """Take a file apart. It is announced as the instance that was asked for; whether it is that, the check tells.

    A file without preamble is a data set alone, or begins with its meta information: old archives keep such files.
    """
    start = PREFIX_END if data[128:PREFIX_END] == b"DICM" else 0
    end = _end_of_meta(data, start)
    meta = _meta(data[start:end])
    explicit = data[end + 4 : end + 6].isalpha() and data[end + 4 : end + 6].isupper()
    guessed = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    announced = Announced(
        class_uid="" if meta is None else meta.get("MediaStorageSOPClassUID") or expected.sop_class or "",
        instance_uid=expected.uid,
        syntax=(meta or {}).get("TransferSyntaxUID") or str(guessed),
    )
    return Arrived(announced, data[end:])


def _meta(data: bytes) -> dict[str, str] | None:
    """Read meta information; empty if there is none, None if it is damaged."""
    if not data:
        return {}
    with quiet():
        try:
            found = dcmread(BytesIO(b"\0" * 128 + b"DICM" + data)).file_meta
            said = {element.keyword: str(element.value) for element in found}
        except Exception:  # pydicom raises whatever a damaged file leads it to
            return None
    return said if {"MediaStorageSOPClassUID", "TransferSyntaxUID"} & set(said) else None


def _end_of_meta(data: bytes, start: int) -> int:
    """Return where the data set begins: behind the last element of group 2, which is always explicit little endian."""
    at = start
    while at + 8 <= len(data) and struct.unpack_from("<H", data, at)[0] == META_GROUP:
        vr = data[at + 4 : at + 6]
        if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF"):
            length = struct.unpack_from("<I", data, at + 8)[0] if at + 12 <= len(data) else 0
            at += 12 + length
        else:
            at += 8 + struct.unpack_from("<H", data, at + 6)[0]
    return min(at, len(data))
