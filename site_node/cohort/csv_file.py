"""A CSV file as hospitals write it, record by record.

Spreadsheets write semicolons and byte order marks, and sometimes latin-1; all are understood. What goes wrong is said
without a word of what the file holds.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from protocol.study_parts import Split
from site_node.errors import LabelsError

MAX_BYTES = 512 << 20
PATIENT_COLUMN, SPLIT_COLUMN = "patient_id", "split"
SPLIT_WORDS: dict[str, Split] = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"validation": "validation", "val": "validation", "valid": "validation"},
}


def read_records(path: Path, needed: Iterable[str], if_unreadable: str) -> Iterator[dict[str, str]]:
    """Yield each record by the names of its columns, without the space around them; what a row lacks is empty.

    Raises: LabelsError if the file is missing (`if_unreadable` is the remedy), is no such table, or lacks a column.
    """
    text = _text(path, if_unreadable)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", restval="")
    try:
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check(path, columns, list(dict.fromkeys(needed)))
        for record in reader:
            yield {name: value.strip() for name, value in record.items() if name and isinstance(value, str)}
    except csv.Error:
        raise LabelsError(
            f"{path.name} is not a table of comma-separated values (line {reader.line_num}).", "Save it as CSV, UTF-8."
        ) from None


def columns_in(path: Path, if_unreadable: str) -> list[str]:
    """Return the names of a table's columns, in their order.

    Raises: LabelsError if the file is missing (`if_unreadable` is the remedy).
    """
    first = _text(path, if_unreadable).split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]


def class_number(text: str, classes: dict[str, int]) -> int | None:
    """Return the number that a label stands for: a class's name, in small letters, or its number. None: it is none."""
    named = classes.get(text.casefold())
    if named is not None:
        return named
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and 0 <= number < len(classes) else None


def numbered(classes: Iterable[str]) -> dict[str, int]:
    """Return the classes' numbers by their names in small letters."""
    return {name.strip().casefold(): number for number, name in enumerate(classes)}


def _check(path: Path, columns: list[str], needed: list[str]) -> None:
    missing = [f"'{column}'" for column in needed if column not in columns]
    if missing:  # never what is there instead: without a header line that is a patient's row
        raise LabelsError(
            f"{path.name} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            "Its first line must name the columns. Add or rename; the study names the columns that it needs.",
        )
    twice = [f"'{column}'" for column in needed if columns.count(column) > 1]
    if twice:
        raise LabelsError(f"{path.name} has the column {', '.join(twice)} twice.", "Leave the one that is meant.")


def _text(path: Path, if_unreadable: str) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LabelsError(f"{path.name} is larger than {MAX_BYTES} bytes.", "Is it the right file?")
        data = path.read_bytes()
    except OSError as error:
        raise LabelsError(
            f"{path} cannot be read: {(error.strerror or 'input error').lower()}.", if_unreadable
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # what old spreadsheets write; our own columns are ASCII either way
