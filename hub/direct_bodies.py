"""Large bodies past the event loop: a thread moves them between socket and file, the loop only waits.

Uvicorn hands a body through Python in pieces of some kilobytes, one loop for all sites; with models of many megabytes
that loop is the hub's bottleneck. `DirectProtocol` lets a route have the connection's socket for the time of one body:
`send_file` gives a file to the kernel, `read` fills one buffer again and again. A thread is used only while bytes flow,
so that a hundred slow hospitals hold a hundred sockets and no thread.

It is an extension of the ASGI scope, which a route asks for (`direct_body`): without it (TLS in this process, another
server, the simulator) bodies take the usual way, with the same result.
"""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httptools
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "wardround.direct-body"
GIVEN_FILE = "wardround.given-file"
"""Names the whole body as a file of this machine. Only a carrier inside this process can: no request holds it."""
BUFFER_BYTES = 512 << 10
BURST_BYTES = 32 << 20
LONGEST_SILENCE_SECONDS = 20.0
# How long a thread waits for a peer that is about to go on; less than that costs more in hand-overs than it frees.
LINGER_MILLISECONDS = 5

Step = Callable[[socket.socket], bool]
"""Moves what can be moved now; False once the body is over."""


class DirectBody:
    """One request's way to its connection's socket."""

    def __init__(self, protocol: "DirectProtocol") -> None:
        self._protocol = protocol

    async def send_file(self, path: Path, start: int, count: int) -> int:
        """Send a part of a file as the body of a response whose headers were sent; return how many bytes went out.

        It is fewer if the other side goes away, or takes nothing for the longest silence.
        """
        # A fast client's next request may be the protocol's cycle before the thread's end is known here.
        protocol, cycle, sent = self._protocol, self._protocol.cycle, 0
        while protocol.transport.get_write_buffer_size() and not protocol.transport.is_closing():
            await asyncio.sleep(0.001)
        with path.open("rb") as file:

            def step(connection: socket.socket) -> bool:
                nonlocal sent
                until = sent + BURST_BYTES
                while sent < min(count, until):
                    sent += os.sendfile(connection.fileno(), file.fileno(), start + sent, count - sent)
                return sent < count

            try:
                await self._move(step, select.POLLOUT)
            except (OSError, TimeoutError):
                protocol.transport.abort()
                return sent
        cycle.expected_content_length = 0
        return sent

    async def read(self, count: int, take: Callable[[memoryview], bool]) -> int:
        """Read a body of so many bytes, piece by piece, in a thread; `take` says whether it wants more.

        Once it does not, or fails, the rest is read and dropped, so that the sender can read the answer.
        Raises: ClientDisconnect if the sender goes away; TimeoutError if it is silent for too long; what `take` raised.
        """
        protocol, cycle, failures = self._protocol, self._protocol.cycle, list[Exception]()

        def taken(data: memoryview) -> bool:
            try:
                return take(data)
            except Exception as error:  # a full disk, say: it is raised once the body is over
                failures.append(error)
                return False

        protocol.flow.pause_reading()
        early, cycle.body = cycle.body, bytearray()
        wanted = await asyncio.to_thread(taken, memoryview(early)) if early else True
        left, buffer = count - len(early), memoryview(bytearray(BUFFER_BYTES))

        def step(connection: socket.socket) -> bool:
            nonlocal left, wanted
            until = left - BURST_BYTES
            while left > max(0, until):
                filled = connection.recv_into(buffer[: min(left, BUFFER_BYTES)])
                if not filled:
                    raise ClientDisconnect
                left -= filled
                wanted = wanted and taken(buffer[:filled])
            return left > 0

        try:
            await self._move(step, select.POLLIN)
        except TimeoutError:
            cycle.keep_alive = False  # nobody knows any more where on this connection a request begins
            raise
        # Its body went past the parser; the next request begins with a new one.
        protocol.parser = httptools.HttpRequestParser(protocol)
        cycle.more_body = False
        cycle.message_event.set()
        protocol.flow.resume_reading()
        if failures:
            raise failures[0]
        return count

    async def _move(self, step: Step, event: int) -> None:
        async with _own_socket(self._protocol.transport) as connection:
            while await asyncio.to_thread(_burst, step, connection, event):
                await _ready(connection, event)


class DirectProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, whose requests may ask for a `DirectBody`."""

    cycle: Any

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        if self.scheme == "http":
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]
            scope["extensions"] = {EXTENSION: DirectBody(self)}


def direct_body(scope: Any) -> DirectBody | None:
    """Return a request's way to its socket, if the server offers one."""
    found = scope.get("extensions", {}).get(EXTENSION)
    return found if isinstance(found, DirectBody) else None


def given_file(scope: Any) -> Path | None:
    """Return the file that holds a request's whole body, if its sender is this very process."""
    found = scope.get("extensions", {}).get(GIVEN_FILE)
    return found if isinstance(found, Path) else None


def _burst(step: Step, connection: socket.socket, event: int) -> bool:
    """Move until the body is over (False) or the other side is slow (True)."""
    poll = select.poll()
    poll.register(connection, event)
    while True:
        try:
            if not step(connection):
                return False
        except BlockingIOError:
            if not poll.poll(LINGER_MILLISECONDS):
                return True


async def _ready(connection: socket.socket, event: int) -> None:
    """Wait until the other side goes on.

    Raises: TimeoutError if it does not for the longest silence.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    begin, end = (
        (loop.add_reader, loop.remove_reader) if event == select.POLLIN else (loop.add_writer, loop.remove_writer)
    )
    begin(connection, ready.set)
    try:
        async with asyncio.timeout(LONGEST_SILENCE_SECONDS):
            await ready.wait()
    finally:
        end(connection)


@asynccontextmanager
async def _own_socket(transport: asyncio.Transport) -> AsyncIterator[socket.socket]:
    # A descriptor of our own: if the loop closes its one meanwhile, the number may at once be another connection's.
    connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    connection.setblocking(False)
    try:
        yield connection
    except asyncio.CancelledError:
        connection.shutdown(socket.SHUT_RDWR)  # a thread that still moves bytes ends
        raise
    finally:
        connection.close()
