"""What an export has done so far, one line of JSON for each file, so that it goes on where it stopped.

The journal lies with the copies and may leave with them: it names a source by a keyed digest and holds no value of one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from site_node.durable import write_durably
from site_node.errors import SettingsError

FILE_NAME = ".export.jsonl"
SCHEMA = "wardround.export/1"


@dataclass(frozen=True)
class Exported:
    """One copy: where it lies, by what pseudonyms it is known, its digest and what became of its attributes."""

    source: str
    file: str
    sha256: str
    patient_id: str
    imaging_study: str
    series: str
    sop_instance_uid: str
    label: str
    split: str
    report: Mapping[str, Any]


class Journal:
    """The journal of one folder of copies; made by `open_journal`."""

    def __init__(self, folder: Path, entries: dict[str, Exported]) -> None:
        self.entries = entries
        self._folder = folder

    def done(self, source: str) -> bool:
        """Tell whether this source's copy is there."""
        entry = self.entries.get(source)
        return entry is not None and (self._folder / entry.file).is_file()

    def add(self, entry: Exported) -> None:
        """Write one line; if it is torn by a crash, the copy is made again."""
        self.entries[entry.source] = entry
        with (self._folder / FILE_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), separators=(",", ":")) + "\n")

    def keep_only(self, sources: frozenset[str]) -> int:
        """Remove the copies of sources that no longer belong to the export, and return how many there were."""
        kept = {source: entry for source, entry in self.entries.items() if source in sources}
        files = {entry.file for entry in kept.values()}
        gone = [entry.file for entry in self.entries.values() if entry.file not in files]
        for file in gone:
            (self._folder / file).unlink(missing_ok=True)
        self.entries = kept
        return len(gone)


def open_journal(folder: Path, selection: str, policy: str) -> Journal:
    """Open a folder's journal, making both if need be. `selection` and `policy` are digests.

    Raises: SettingsError if the folder holds something else, or an export of another selection or policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, first = folder / FILE_NAME, {"schema": SCHEMA, "selection": selection, "policy": policy}
    if not path.exists():
        if any(folder.iterdir()):
            raise SettingsError(f"{folder} is not empty.", "Name a new folder for the export.")
        write_durably(path, json.dumps(first).encode() + b"\n")
        return Journal(folder, {})
    lines = path.read_text(encoding="utf-8").splitlines()
    if _parsed(lines[0] if lines else "") != first:
        raise SettingsError(
            f"{folder} holds an export of other images, or by another policy or key.", "Name a new folder."
        )
    entries = [_entry(line) for line in lines[1:]]
    whole = {entry.source: entry for entry in entries if entry is not None}
    text = [json.dumps(first), *(json.dumps(asdict(entry), separators=(",", ":")) for entry in whole.values())]
    write_durably(path, ("\n".join(text) + "\n").encode())  # without a torn last line, on which nothing may be added
    return Journal(folder, whole)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _entry(line: str) -> Exported | None:
    document = _parsed(line)
    try:
        return Exported(**document)
    except TypeError:
        return None
