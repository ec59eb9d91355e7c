"""A multipart/related body read part by part, and never a part that is not whole.

A body that ends before its closing delimiter broke off: a proxy may end a connection in a way that HTTP itself takes
for the end of the body. Source: RFC 2046 section 5.1.1.
"""

from collections.abc import Iterable, Iterator
from email.message import Message

from site_node.errors import PacsError

BROKE_OFF = "the PACS's answer broke off"


def parts_of(content_type: str, chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the content of each part. A body that is no multipart but application/dicom is its own only part.

    Raises: PacsError if the body breaks off, is of another kind, or a part is larger than `max_bytes`.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() == "application/dicom":
        yield _whole(chunks, max_bytes)
        return
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str) or not boundary:
        raise PacsError("the PACS answered with something else than DICOM", lasting=True)
    yield from _parts(b"\r\n--" + boundary.encode(), chunks, max_bytes)


def _parts(delimiter: bytes, chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    data, searched, first = bytearray(b"\r\n"), 0, True  # the first delimiter may stand at the very beginning
    for chunk in chunks:
        data += chunk
        while True:
            at = data.find(delimiter, searched)
            after = at + len(delimiter)
            if at < 0 or len(data) < after + 2:
                searched = max(0, at if at >= 0 else len(data) - len(delimiter))
                break
            if not first:
                yield _content(data[:at])
            if data[after : after + 2] == b"--":
                return
            del data[:after]
            searched, first = 0, False
        if len(data) > max_bytes:
            raise PacsError("the PACS sent an object larger than is accepted", lasting=True)
    raise PacsError(BROKE_OFF)


def _content(part: bytearray) -> bytes:
    if part.startswith(b"\r\n\r\n"):  # no headers
        return bytes(part[4:])
    end = part.find(b"\r\n\r\n")
    if end < 0:
        raise PacsError("the PACS sent a part without content", lasting=True)
    return bytes(part[end + 4 :])


def _whole(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > max_bytes:
            raise PacsError("the PACS sent an object larger than is accepted", lasting=True)
    return bytes(data)
