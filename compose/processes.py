"""Processes of the demo: started, restarted with a growing pause when they die, and ended together.

Each service is a process group in a session of its own (a Ctrl-C in the terminal reaches only the demo, which then ends
them in order), tied to the demo by the parent-death signal (`leash.py`), carries the demo's mark, and is outlived by no
child of its own (`watchdog.py`). So whatever ends the demo, SIGKILL included, ends them all.

One thread, no callbacks: the owner calls `tick` often, or `pause`, which does. The parent-death signal is tied to the
*thread* that started a process, so a supervisor belongs to the main thread.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from compose import leash, watchdog
from compose.errors import ServiceError
from compose.interruption import Interruption
from compose.nursery import Born, Nursery

POLL_SECONDS = 0.05
LOG_TAIL_CHARACTERS = 1500
Process = subprocess.Popen[bytes] | Born
log = structlog.get_logger()


@dataclass(frozen=True)
class Backoff:
    """How a died service comes back: pauses double from first to most; a life of `healthy_seconds` starts anew."""

    first_seconds: float = 0.5
    most_seconds: float = 5.0
    healthy_seconds: float = 20.0
    give_up_after: int = 6

    def pause_seconds(self, deaths: int) -> float:
        """Return the pause after so many short lives in a row."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** (deaths - 1))


@dataclass(frozen=True)
class Service:
    """A program to keep running.

    `ends_last` is for what others need while they end (Redis); `born` for what the nursery may start (`nursery.py`).
    """

    role: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ends_last: bool = False
    born: bool = False


@dataclass(frozen=True)
class RunningProcess:
    """One living process, as `report.json` lists it."""

    role: str
    pid: int
    command: str
    restarts: int


@dataclass
class _Kept:
    service: Service
    process: "Process | None"
    started: float
    deaths: int = 0
    restarts: int = 0
    again_at: float = 0.0


class Supervisor:
    """Keeps services running until `stop`.

    Guarantee: after `stop` returns, or after the owner died in any way (within seconds), no process that it started,
        nor any descendant of one, is left.
    """

    def __init__(self, interruption: Interruption, backoff: Backoff = Backoff()) -> None:
        self._interruption = interruption
        self._backoff = backoff
        self.mark = secrets.token_hex(16)
        self._kept: dict[str, _Kept] = {}
        self._watchdog_pipe = os.pipe()
        self._watchdog = self._start_watchdog()
        self._nursery: Nursery | None = None

    @contextmanager
    def nursery(self, log: Path) -> Iterator[None]:
        """Start what may be born out of a nursery, which has loaded its modules, while the block runs."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._nursery = Nursery({**os.environ, watchdog.MARK_VARIABLE: self.mark}, log)
        try:
            yield
        finally:
            self._nursery.close()
            self._nursery = None

    def start(self, service: Service) -> None:
        """Start a service and keep it running from now on."""
        self._kept[service.role] = _Kept(service, self._spawn(service), time.monotonic())

    def replace(self, service: Service) -> None:
        """End the service of this role, if there is one, and keep the new one instead."""
        kept = self._kept.pop(service.role, None)
        if kept is not None:
            self._end([kept], grace_seconds=5.0)
        self.start(service)

    def tick(self) -> None:
        """Look after every service once.

        Raises: Interrupted if the end was asked for; ServiceError if a service dies again and again.
        """
        self._interruption.check()
        if self._watchdog.poll() is not None:
            self._watchdog = self._start_watchdog()
        for kept in self._kept.values():
            self._look_after(kept)

    def pause(self, seconds: float) -> None:
        """Wait, looking after the services."""
        until = time.monotonic() + seconds
        while True:
            self.tick()
            rest = until - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(POLL_SECONDS, rest))

    def run(self, *commands: Service, timeout_seconds: float = 120.0) -> list[str]:
        """Run commands to their end, side by side; return what each printed on standard output.

        Raises: ServiceError naming the command and its last words, if one fails or takes too long; Interrupted.
        """
        outputs = [command.log.with_suffix(".out") for command in commands]
        running: list[Process] = []
        try:
            for command, output in zip(commands, outputs, strict=True):
                running.append(self._spawn(command, output))
            until = time.monotonic() + timeout_seconds
            while any(process.poll() is None for process in running) and time.monotonic() < until:
                self.pause(POLL_SECONDS)
            for command, process in zip(commands, running, strict=True):
                if process.poll() != 0:
                    raise ServiceError(f"'{command.role}' failed. {_last_words(command.log)}")
            return [output.read_text(errors="replace") for output in outputs]
        finally:
            for process in running:
                _signal_group(process, signal.SIGKILL)
                process.wait()
            for output in outputs:
                output.unlink(missing_ok=True)

    def pid(self, role: str) -> int | None:
        """Return the id of the service's process, or None while it does not live."""
        process = self._kept[role].process if role in self._kept else None
        return process.pid if process is not None and process.poll() is None else None

    def processes(self) -> list[RunningProcess]:
        """Return the living processes, in the order in which they were first started."""
        return [
            RunningProcess(kept.service.role, kept.process.pid, " ".join(kept.service.command), kept.restarts)
            for kept in self._kept.values()
            if kept.process is not None and kept.process.poll() is None
        ]

    def stop(self, grace_seconds: float = 3.0) -> None:
        """End all services: asked first, killed after the grace; those that end last after the others.

        A second wish to end (Ctrl-C again) while this runs kills at once. Calling it twice does no harm.
        """
        kept = list(self._kept.values())
        self._kept.clear()
        wishes = self._interruption.times
        self._end([k for k in kept if not k.service.ends_last], grace_seconds, wishes)
        self._end([k for k in kept if k.service.ends_last], grace_seconds, wishes)
        watchdog.kill_marked(self.mark)
        self._dismiss_watchdog()

    def _spawn(self, service: Service, output: Path | None = None) -> Process:
        service.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **service.environment, watchdog.MARK_VARIABLE: self.mark}
        if service.born and self._nursery is not None:
            born = self._nursery.bear(service.command, environment, output or service.log, service.log)
            if born is not None:
                return born
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *service.command]
        with service.log.open("ab") as errors, (output or service.log).open("ab") as printed:
            return subprocess.Popen(
                leashed,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )

    def _look_after(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.process is None:
            if now >= kept.again_at:
                kept.process, kept.started = self._spawn(kept.service), now
                kept.restarts += 1
        elif kept.process.poll() is not None:
            status = kept.process.returncode
            _signal_group(kept.process, signal.SIGKILL)  # children that it left behind
            kept.deaths = 1 if now - kept.started >= self._backoff.healthy_seconds else kept.deaths + 1
            if kept.deaths >= self._backoff.give_up_after:
                raise ServiceError(f"'{kept.service.role}' does not stay up. {_last_words(kept.service.log)}")
            kept.process, kept.again_at = None, now + self._backoff.pause_seconds(kept.deaths)
            log.warning("service died, it is started again", role=kept.service.role, status=status)

    def _end(self, ending: list[_Kept], grace_seconds: float, wishes: int | None = None) -> None:
        alive = [kept.process for kept in ending if kept.process is not None]
        for process in alive:
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + grace_seconds
        while any(process.poll() is None for process in alive) and time.monotonic() < until:
            if wishes is not None and self._interruption.times > wishes:
                break
            time.sleep(POLL_SECONDS)
        for process in alive:
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def _start_watchdog(self) -> "subprocess.Popen[bytes]":
        reading, _ = self._watchdog_pipe
        command = [sys.executable, "-I", "-S", watchdog.__file__, self.mark]
        return subprocess.Popen(
            command, stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def _dismiss_watchdog(self) -> None:
        if self._watchdog_pipe[0] < 0:
            return
        for end in self._watchdog_pipe:
            os.close(end)
        self._watchdog_pipe = (-1, -1)
        self._watchdog.wait()


def _signal_group(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _last_words(path: Path) -> str:
    try:
        words = path.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
    except OSError:
        words = ""
    return f"Its last words (all of them are in {path}):\n{words or '(none)'}"
