"""Bytes on the wire, counted where they pass: a relay between the sites and the hub, of a process of its own.

It stands in the way only while bytes are counted, never while rounds are timed. `splice` moves what passes without
copying it, so that what is counted is what the two ends sent: TCP payload, HTTP headers included.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIECE_BYTES = 1 << 20


class Counter:
    """Counts what passes, and keeps the sum in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._total = 0

    def add(self, count: int) -> None:
        """Add to the sum."""
        with self._lock:
            self._total += count
            self._path.write_text(f"{self._total:020d}")  # always as long: a reader in between sees a number


@contextmanager
def counting_relay(folder: Path, hub_port: int) -> Iterator[tuple[int, Callable[[], int]]]:
    """Run a relay to the hub; gives its port, and a function that says how many bytes have passed."""
    process = subprocess.Popen([sys.executable, __file__, str(folder), str(hub_port)])
    try:
        while not (folder / "relay.port").exists():
            time.sleep(0.05)
        yield int((folder / "relay.port").read_text()), lambda: int((folder / "relay.bytes").read_text())
    finally:
        process.kill()
        process.wait()


def relay(listening: socket.socket, hub: tuple[str, int], counter: Counter) -> None:
    """Pass on every connection, for ever."""
    while True:
        near, _ = listening.accept()
        far = socket.create_connection(hub)
        for source, sink in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pass_on, args=(source, sink, counter), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, counter: Counter) -> None:
    reading, writing = os.pipe()
    try:
        while count := os.splice(source.fileno(), writing, PIECE_BYTES):
            left = count
            while left:
                left -= os.splice(reading, sink.fileno(), left)
            counter.add(count)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return  # one end is gone, and with it this direction
    finally:
        os.close(reading)
        os.close(writing)


if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        (folder / "relay.port.part").write_text(str(server.getsockname()[1]))
        (folder / "relay.port.part").replace(folder / "relay.port")
        relay(server, ("127.0.0.1", port), Counter(folder / "relay.bytes"))
