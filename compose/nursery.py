"""A process that has loaded what a hospital's processes load, and becomes each of them by forking.

A federation on one machine starts some thirty Python programs at once. Most of their first seconds go into loading the
same modules, which hospitals with machines of their own do side by side; one machine pays for all. So the modules are
loaded once, here. What is forked is as separate as any process: a session of its own, its own files, its own end; it
runs the module that its command line names, with those arguments. What it shared at birth is code, and no key or file.
It is forked twice, so that the one who asked becomes its parent and waits for it like for any other child; the nursery
may then end without consequence, and does once all are born.

    asks    {"command": [...], "environment": {...}, "printed": PATH, "errors": PATH}     one packet
    answers the process id                                                                 one packet

Source: the idea is Android's zygote; Linux manual, prctl(2), PR_SET_CHILD_SUBREAPER.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compose import leash

PRELOADED = (
    "protocol.accountants",
    "site_node.cli",
    "site_node.enrolment",
    "site_node.governance.gate",
    "site_node.agent.agent",
    "site_node.agent.hub_client",
    "site_node.tasks.worker",
    "celery.app.amqp",
    "celery.apps.worker",
    "celery.concurrency.thread",
    "kombu.transport.redis",
)
"""What gates, agents and workers load; neither images nor the hub's parts, nor torch."""
PR_SET_CHILD_SUBREAPER = 36
MOST_BYTES = 1 << 20
BIRTH_SECONDS = 30.0
REPARENTED_SECONDS = 5.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Born:
    """A process out of the nursery: a child of this process, with what the supervisor asks of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it lives."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end and return the exit status."""
        return self._reap(0)

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Nursery:
    """The owner's end. One thread, like the supervisor that has it."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(BIRTH_SECONDS)
        nursery = [sys.executable, "-P", "-m", "compose.nursery", str(theirs.fileno()), str(os.getpid())]
        with theirs, log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *nursery],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**environment, **ONE_THREAD},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def bear(self, command: Sequence[str], environment: Mapping[str, str], printed: Path, errors: Path) -> Born | None:
        """Return a new process that runs a Python command line; None if the nursery cannot: start it the usual way."""
        if not may_be_born(command) or self._process.poll() is not None:
            return None
        wish = {
            "command": list(command),
            "environment": dict(environment),
            "printed": str(printed),
            "errors": str(errors),
        }
        take_in_orphans(wanted=True)
        try:
            self._ours.send(json.dumps(wish).encode())
            answer = self._ours.recv(MOST_BYTES)
        except OSError:
            self.close()
            return None
        finally:
            take_in_orphans(wanted=False)
        return Born(int(answer)) if answer else None

    def close(self) -> None:
        """End the nursery. Who was born lives on."""
        self._ours.close()
        self._process.kill()
        self._process.wait()


def may_be_born(command: Sequence[str]) -> bool:
    """Tell whether a command line is this interpreter running a module."""
    words = [word for word in command if word != "-P"]
    return len(words) > 2 and words[:2] == [sys.executable, "-m"]


def take_in_orphans(*, wanted: bool) -> None:
    """Become the parent of orphaned grandchildren, or no longer. Raises: OSError where the system cannot."""
    leash.ask_the_kernel(PR_SET_CHILD_SUBREAPER, int(wanted))


def main(channel: socket.socket, owner: int) -> None:
    """Load the modules, then give birth until the other end is closed; in the new process, run its module."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a later collection in the new processes would copy every page that they share
    while packet := channel.recv(MOST_BYTES):
        wish = json.loads(packet)
        child = os.fork()
        if child == 0:
            if os.fork():
                os._exit(0)
            _grow_up(wish, channel, owner)
            return
        os.waitpid(child, 0)


def _grow_up(wish: dict[str, Any], channel: socket.socket, owner: int) -> None:
    os.setsid()
    until = time.monotonic() + REPARENTED_SECONDS
    while os.getppid() != owner and time.monotonic() < until:
        time.sleep(0.0005)
    leash.tie_to(owner)
    for number, path in ((1, wish["printed"]), (2, wish["errors"])):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(wish["environment"])
    channel.send(str(os.getpid()).encode())
    channel.close()
    words = [word for word in wish["command"] if word != "-P"]
    sys.argv = words[2:]
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
