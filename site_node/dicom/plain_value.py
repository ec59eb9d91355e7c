"""The values of most header elements, taken from their bytes: one text in ASCII, or one unsigned number of 16 bits.

Most of the time that the library takes for a header goes into turning elements into values. An index needs few of them,
and nearly all are such texts and numbers, which mean the same in every character set. Whatever is not as plain as that
is left to the library.
Source: DICOM PS3.5 section 6.2 (value representations), 6.1.2 (ASCII is G0 of all sets but ISO_IR 13, where the
backslash and the tilde are other signs).
"""

from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

TEXTS = frozenset({"AS", "CS", "DA", "LO", "SH", "UI"})
NUMBER, NUMBER_BYTES = "US", 2
NOT_PLAIN = frozenset(b"\\~\x1b")
PADDING = " \0"


def plain_value(dataset: Dataset, keyword: str) -> str | int | None:
    """Return an element's value if it was read, not looked at yet, and is plain; None for the library to say.

    Guarantee: what is returned is what the library gives, but for padding at the end of a text.
    """
    tag, usual = _element(keyword)
    element = dataset.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement) or not element.value:
        return None
    value, kind = element.value, element.VR or usual
    if kind in TEXTS:
        is_plain = value.isascii() and NOT_PLAIN.isdisjoint(value)
        return value.decode("ascii").rstrip(PADDING) or None if is_plain else None
    if kind == NUMBER and len(value) == NUMBER_BYTES:
        return int.from_bytes(value, "little" if element.is_little_endian else "big")
    return None


@lru_cache(maxsize=1024)
def _element(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag), dictionary_VR(tag)
