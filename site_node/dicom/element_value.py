"""The value of a header's element as an index, a label or an export needs it.

>>> from pydicom.dataset import Dataset
>>> header = Dataset()
>>> header.Modality = "ct "
>>> term_of(header, "Modality")
'CT'
"""

from typing import Any

from pydicom.dataset import Dataset

from site_node.dicom.plain_value import plain_value
from site_node.errors import UnreadableError


def first_value(dataset: Dataset, keyword: str) -> Any:
    """Return an element's value, its first one if there are several, or None if it is missing, empty or unreadable."""
    plain = plain_value(dataset, keyword)
    if plain is not None:
        return plain
    try:
        value = dataset.get(keyword)
    except Exception:  # a value that its own VR forbids raises on access, whichever way it is wrong
        return None
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return value[0] if len(value) else None
    return value


def whole_number(dataset: Dataset, keyword: str, default: int) -> int:
    """Return an element's value as a whole number of 0 or more; `default` if it is missing.

    Raises: UnreadableError if there is a value that is no such number.
    """
    plain = plain_value(dataset, keyword)
    if isinstance(plain, int):
        return plain
    try:
        raw = dataset.get(keyword)
        value = first_value(dataset, keyword) if raw is not None else None
        number = default if value in (None, "") else int(value)
    except Exception:  # whatever the value's VR leads to; the cause is not kept, because it quotes the value
        raise UnreadableError(f"damaged: {keyword} in the header is not a number") from None
    if number < 0:
        raise UnreadableError(f"damaged: {keyword} in the header is negative")
    return number


def text_of(dataset: Dataset, keyword: str) -> str | None:
    """Return an element's value as text, the first one if there are several; None if there is none to read."""
    value = first_value(dataset, keyword)
    return str(value if value is not None else "").replace("\0", "").strip() or None


def term_of(dataset: Dataset, keyword: str) -> str | None:
    """Return an element's value as a term in capitals: headers write it in both cases."""
    text = text_of(dataset, keyword)
    return text.upper() if text else None
