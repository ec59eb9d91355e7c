"""What was sent and cannot be taken: its bytes as they came, and beside them the reason for a person.

The same bytes refused for the same reason again are counted, not kept again. An entry's `.json` holds no DICOM text;
the bytes are a patient's and stay in this folder, which the index does not read.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from site_node.durable import finished_files, sync_folder, write_durably
from site_node.errors import DiskFullError
from site_node.ingest.intake import Intake

NAME_DIGITS = 24


@dataclass(frozen=True)
class QuarantineEntry:
    """One refused object: why, from whom (AE title), when last, how often, and its file if bytes are kept."""

    reason: str
    caller: str
    at: str
    size: int
    times: int = 1
    file: str | None = None


class Quarantine:
    """A folder of refused objects. Safe for several threads of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def add(self, intake: Intake, reason: str, caller: str) -> None:
        """Keep a refused object's bytes with the reason, or count it where it is known already.

        Raises: DiskFullError if even the entry cannot be written.
        """
        known = hashlib.sha256(f"{reason}\n{intake.digest}\n{intake.size}".encode()).hexdigest()[:NAME_DIGITS]
        entry = QuarantineEntry(reason, caller, datetime.now(UTC).isoformat(timespec="seconds"), intake.size)
        note, content = self.folder / f"{known}.json", self.folder / f"{known}.dcm"
        try:
            with self._lock:
                if note.exists():
                    entry = replace(entry, times=_read(note).times + 1)
                if intake.path.exists():
                    intake.path.rename(content)
                    sync_folder(self.folder)
                if content.exists():
                    entry = replace(entry, file=content.name)
                write_durably(note, json.dumps(asdict(entry), indent=2).encode())
        except OSError as error:
            raise DiskFullError("A refused object cannot be quarantined.", "Make room on the site's disk.") from error

    def entries(self) -> Iterator[QuarantineEntry]:
        """Yield all entries."""
        for path in finished_files(self.folder, ".json"):
            yield _read(path)


def _read(path: Path) -> QuarantineEntry:
    return QuarantineEntry(**json.loads(path.read_bytes()))
