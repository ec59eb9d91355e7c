"""A listener for tests: in a process of its own by the hospital's command, or in this one."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from site_node.enrolment import create_site
from site_node.governance.policy import policy_text
from site_node.ingest.counts import read_counts
from site_node.ingest.intake import Room
from site_node.ingest.listener import Listener, listening
from site_node.ingest.listener_paths import ListenerPaths
from site_node.ingest.quarantine import Quarantine
from site_node.listener_settings import ListenerSettings
from site_node.settings import SitePaths

SECONDS = 60
CT1 = {"ae_title": "CT1"}


def make_site(folder: Path, **block: Any) -> SitePaths:
    """Make a site whose site.yaml has a block `listener`; CT1 may call unless it says otherwise."""
    images = folder / "images"
    images.mkdir(parents=True)
    settings = create_site(
        folder / "site", "st-anna", "https://hub.example.org", [images], None, policy=policy_text("person")
    )
    listener = {"port": 0, "min_free_mb": 1, "callers": [CT1]} | block
    text = settings.paths.configuration.read_text(encoding="utf-8")
    settings.paths.configuration.write_text(text + yaml.safe_dump({"listener": listener}), encoding="utf-8")
    return settings.paths


@dataclass
class RunningListener:
    """A process that listens; what it logs is in `log`."""

    paths: SitePaths
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return what it logged so far; a line that is no JSON fails the test."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def stop(self) -> int:
        """End it as an administrator does, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def running_listener(paths: SitePaths) -> Iterator[RunningListener]:
    """Run `wardround site listen` until the end of the block."""
    log = paths.logs / "listener.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "site_node.cli", "listen", str(paths.root)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    running = RunningListener(paths, 0, process, log)
    try:
        running.port = _port_of(running)
        yield running
    finally:
        process.kill()
        process.wait(SECONDS)


def _port_of(running: RunningListener) -> int:
    waited = threading.Event()
    for _ in range(SECONDS * 20):
        for line in running.lines():
            if line["event"] == "listening":
                return int(line["port"])
        if running.process.poll() is not None:
            break
        waited.wait(0.05)
    raise RuntimeError(f"The listener did not start: {running.log.read_text(encoding='utf-8')[-2000:]}")


@dataclass
class ListenerHere:
    """A listener in this process."""

    listener: Listener
    paths: ListenerPaths

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.listener.port

    def counts(self) -> dict[str, int]:
        """Return its counters as they are now."""
        self.listener.counts.save()
        return read_counts(self.paths.counts)

    def reasons(self) -> list[str]:
        """Return why objects were quarantined."""
        return sorted(entry.reason for entry in Quarantine(self.paths.quarantine).entries())

    def stored(self) -> list[Path]:
        """Return the received files."""
        return sorted(self.paths.images.rglob("*.dcm"))


@contextmanager
def listener_here(folder: Path, room: Room | None = None, **block: Any) -> Iterator[ListenerHere]:
    """Run a listener in threads of this process; CT1 may call unless the block says otherwise."""
    paths = ListenerPaths(folder / "images", folder / "own")
    settings = ListenerSettings.model_validate({"port": 0, "min_free_mb": 1, "callers": [CT1]} | block)
    stop = threading.Event()
    with listening(settings, paths, room) as listener:
        thread = threading.Thread(target=listener.run, args=(stop,))
        thread.start()
        try:
            yield ListenerHere(listener, paths)
        finally:
            stop.set()
            thread.join(SECONDS)
