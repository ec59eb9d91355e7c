"""A demo run as a person runs it: a process with a folder, looked at from outside."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from compose.watchdog import MARK_VARIABLE, marked_processes

SMALL_STUDY: dict[str, Any] = {
    "name": "small",
    "title": "A small study",
    "cohort": {"modality": ["DX"]},
    "label": {"column": "pneumonia", "classes": ["absent", "pneumonia"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "densenet", "arguments": {"block_config": [1, 1], "init_features": 8, "growth_rate": 4}},
    "training": {"local_steps": 2, "sampling_rate": 0.1, "learning_rate": 0.1},
    "rounds": 2,
    "participants": {"minimum_sites": 3, "quorum": 1.0, "training_patients": 334},
    "privacy": {"epsilon": 8.0, "delta": 1e-4},
}


def _heed_ctrl_c() -> None:
    # Tests that run in a shell's background inherit an ignored SIGINT; a terminal's command does not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class DemoRun:
    """One `wardround demo` process."""

    folder: Path
    process: "subprocess.Popen[str]"

    @classmethod
    def start(cls, folder: Path, *options: str, study: dict[str, Any] | None = None) -> "DemoRun":
        """Start a demo in a session of its own, so that it stands for a terminal's."""
        command = [sys.executable, "-m", "compose.cli", "demo", "--dir", str(folder / "demo"), *options]
        if study is not None:
            (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
            command += ["--study", str(folder / "study.yaml")]
        with (folder / "output.txt").open("a") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
                preexec_fn=_heed_ctrl_c,
            )
        return cls(folder / "demo", process)

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.folder.parent / "output.txt").read_text(encoding="utf-8", errors="replace")

    @property
    def report(self) -> dict[str, Any]:
        """Its report."""
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return report

    def pid(self, role: str) -> int | None:
        """The process id of a role, as the demo lists it."""
        try:
            listed = json.loads((self.folder / "processes.json").read_text(encoding="utf-8"))["processes"]
        except (OSError, ValueError):
            return None
        return next((int(entry["pid"]) for entry in listed if entry["role"] == role), None)

    def kill(self, role: str) -> None:
        """Kill the process of a role, as a machine out of memory would."""
        pid = self.pid(role)
        assert pid is not None, f"{role} is not running\n{self.output}"
        os.kill(pid, signal.SIGKILL)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the hub's database from beside it."""
        path = self.folder / "hub" / "hub.sqlite"
        if not path.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def wait_until(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait for something while the demo runs."""
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the demo ended with {self.process.returncode}\n{self.output}"
            assert time.monotonic() < until, f"it did not happen in {seconds} s\n{self.output}"
            time.sleep(0.05)

    def mark(self) -> str:
        """The mark that all of this demo's processes carry; empty if none was started yet."""
        return mark_of(psutil.Process(self.process.pid))

    def ended(self, seconds: float = 240.0) -> int:
        """Wait for the end and return the exit status."""
        return self.process.wait(timeout=seconds)

    def stop(self) -> None:
        """End it however it stands; nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def mark_of(demo: psutil.Process) -> str:
    """The mark that all of a demo's processes carry; empty if none was started yet."""
    for child in demo.children(recursive=True):
        try:
            found = child.environ().get(MARK_VARIABLE)
        except psutil.Error:
            continue
        if found:
            return found
    return ""


def nothing_is_left(mark: str, seconds: float = 20.0) -> bool:
    """Wait until no process carries the mark."""
    until = time.monotonic() + seconds
    while marked_processes(mark):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
