"""The demo's folder: what lies where, what it remembers between runs, and that only one demo uses it.

DIR/demo.json       ports and the study's digest; its presence says that the folder is a demo's
DIR/people.json     accounts and passwords, readable by their owner alone
DIR/processes.json  the living processes, kept up to date
DIR/report.json     what the study did, written when it has ended
DIR/hub  DIR/sites/NAME  DIR/redis  DIR/logs
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from compose.errors import DemoError

OWN_ENTRIES = ("hub", "sites", "redis", "logs", "people.json", "people.new.json", "invitations.json", "processes.json")
OWN_ENTRIES_LAST = ("report.json", "demo.json")


@dataclass(frozen=True)
class DemoState:
    """What a demo remembers between runs."""

    ports: Mapping[str, int] = field(default_factory=dict)
    study_digest: str | None = None

    def with_port(self, server: str, port: int) -> "DemoState":
        """Return this state with the port on which a server was last started."""
        return replace(self, ports={**self.ports, server: port})


@dataclass(frozen=True)
class DemoLayout:
    """Where everything of a demo lies."""

    root: Path

    @property
    def hub(self) -> Path:
        """Return the hub's folder."""
        return self.root / "hub"

    @property
    def hub_redis(self) -> Path:
        """Return the folder of the hub's Redis."""
        return self.root / "redis"

    @property
    def people(self) -> Path:
        """Return the file of accounts and passwords."""
        return self.root / "people.json"

    @property
    def new_people(self) -> Path:
        """Return the file of accounts while they are being made."""
        return self.root / "people.new.json"

    @property
    def invitations(self) -> Path:
        """Return the file of invitation codes while hospitals are being enrolled."""
        return self.root / "invitations.json"

    @property
    def processes(self) -> Path:
        """Return the file that lists the living processes."""
        return self.root / "processes.json"

    @property
    def report(self) -> Path:
        """Return the report's file."""
        return self.root / "report.json"

    def site(self, name: str) -> Path:
        """Return a hospital's folder."""
        return self.root / "sites" / name

    def log(self, role: str) -> Path:
        """Return the log file of a process."""
        return self.root / "logs" / f"{role.replace(' ', '-')}.log"

    def prepare(self, *, fresh: bool) -> None:
        """Make the folder, or check that it is a demo's; `fresh` removes an earlier demo from it.

        Raises: DemoError if the folder holds something else, which is then left alone.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        entries = {path.name for path in self.root.iterdir()} - {"demo.lock"}
        if entries and "demo.json" not in entries:
            raise DemoError(
                f"{self.root} holds something that is not a demo's. Name an empty or a new folder with --dir."
            )
        if fresh:
            for name in (*OWN_ENTRIES, *OWN_ENTRIES_LAST):
                _remove(self.root / name)
        if not (self.root / "demo.json").exists():
            self.remember(DemoState())

    def state(self) -> DemoState:
        """Return what the last run remembered."""
        return DemoState(**json.loads((self.root / "demo.json").read_text(encoding="utf-8")))

    def remember(self, state: DemoState) -> None:
        """Keep the state for the next run."""
        write_json(self.root / "demo.json", asdict(state))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second demo out of this folder while the block runs. The lock ends with the process, however it ends.

        Raises: DemoError if another demo is running here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "demo.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoError(
                    f"A demo is running in {self.root} already. End it with Ctrl-C, or name another folder with --dir."
                ) from None
            yield


def write_json(path: Path, value: Mapping[str, Any], mode: int = 0o644) -> None:
    """Write a JSON file whole or not at all, with these rights from its first byte."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    unfinished.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
