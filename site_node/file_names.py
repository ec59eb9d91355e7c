"""File names as a disk really holds them: bytes, which need not be UTF-8.

Python carries the bytes of a foreign name as lone surrogates, which neither SQLite, nor JSON, nor a terminal takes.
"""

import os
from pathlib import Path


def stored(path: str) -> str | bytes:
    """Return a path as SQLite can hold it: text, or the bytes of a name that is not UTF-8; `os.fsdecode` undoes it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def shown(path: Path | str) -> str:
    r"""Return a path for a person or for JSON; bytes that are not UTF-8 become \xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
