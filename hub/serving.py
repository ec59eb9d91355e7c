"""Run the API in this process: find a port, tell its address, serve until a signal."""

import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from hub.direct_bodies import DirectProtocol
from hub.errors import SettingsError
from hub.settings import Settings

PORTS_TRIED = 50
SHUTDOWN_SECONDS = 3
# How long a thread may keep the interpreter from the loop that answers polls; Python's own 5 ms add up under load.
SWITCH_SECONDS = 0.001
ADDRESS_FILE = "hub.address"


def bind(host: str, port: int, *, strict: bool) -> socket.socket:
    """Take the port, or the next free one.

    Raises: SettingsError if the port (strict) or all of fifty are taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (1 if strict or port == 0 else PORTS_TRIED)):
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, candidate))
            taken.listen(1)  # else two processes could both bind, with SO_REUSEADDR
        except (OSError, OverflowError) as error:
            taken.close()
            if getattr(error, "errno", None) != errno.EADDRINUSE:
                raise SettingsError(
                    f"Cannot listen at {host}:{candidate}.", "Choose another --host or --port."
                ) from error
        else:
            return taken
    raise SettingsError(f"Port {port} at {host} is taken.", "Stop what listens there, or choose another --port.")


def serve(app: FastAPI, settings: Settings, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. `hub.address` in the hub's folder names the address while it runs."""
    host, port = listening.getsockname()[:2]
    address = settings.dir / ADDRESS_FILE
    _write(address, json.dumps({"url": f"http://{host}:{port}", "pid": os.getpid()}))
    config = uvicorn.Config(
        app,
        http=DirectProtocol,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    for ending in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn raises the signal again when it has finished; without a handler that would kill before the clean-up.
        signal.signal(ending, _end)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        address.unlink(missing_ok=True)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.replace(path)
