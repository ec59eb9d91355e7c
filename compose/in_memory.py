"""HTTP without a network: a synchronous httpx transport onto an ASGI application in this process.

Small bodies go through as bytes. A body that is a file is handed over as that file, both ways: the application's answer
by ASGI's "Path Send" extension, a request's body under a name that its sender gives (`FILE`) and the application may
use. Who takes it still finds all bytes in the stream, if it would rather have those.
"""

import asyncio
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from hub.direct_bodies import GIVEN_FILE
from site_node.agent.hub_client import FILE

BASE_URL = "http://hub.in-memory"
CLIENT = ("127.0.0.1", 123)
PATH_SEND = "http.response.pathsend"
PIECE_BYTES = 1 << 20


class InMemoryTransport(httpx.BaseTransport):
    """Carry requests to an ASGI application, whose event loop runs in a thread of its own."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="in-memory hub", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; the whole answer is read, or named as a file."""
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()

    def close(self) -> None:
        """Stop the event loop."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        """Return this transport."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop the event loop."""
        self.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request)
        await self._app(_scope(request), exchange.receive, exchange.send)
        return exchange.response()


class _Exchange:
    """One request's body on its way in, and the answer on its way out."""

    def __init__(self, request: httpx.Request) -> None:
        if not isinstance(request.stream, httpx.SyncByteStream):
            raise TypeError("Expected a request with a synchronous body.")
        self._pieces: Iterator[bytes] | None = iter(request.stream)
        self._is_head = request.method == "HEAD"
        self._ended = asyncio.Event()
        self._status = 500
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._file: Path | None = None

    async def receive(self) -> dict[str, Any]:
        """Give the application the next piece of the request."""
        if self._pieces is None:
            await self._ended.wait()
            return {"type": "http.disconnect"}
        piece = next(self._pieces, None)
        if piece is None:
            self._pieces = None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Take the next piece of the answer."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", []))
        elif message["type"] == PATH_SEND:
            self._file = Path(message["path"])
            self._ended.set()
        elif message["type"] == "http.response.body":
            if not self._is_head:
                self._body.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended.set()

    def response(self) -> httpx.Response:
        """Return the answer.

        Raises: httpx.RemoteProtocolError if the application returned before its answer was over.
        """
        if not self._ended.is_set():
            raise httpx.RemoteProtocolError("The application's answer has no end.")
        if self._file is not None:
            stream = _FileStream(self._file)
            return httpx.Response(self._status, headers=self._headers, stream=stream, extensions={FILE: self._file})
        return httpx.Response(self._status, headers=self._headers, content=b"".join(self._body))


class _FileStream(httpx.SyncByteStream):
    """A file's bytes, read only by who wants them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


def _scope(request: httpx.Request) -> dict[str, Any]:
    extensions: dict[str, Any] = {PATH_SEND: {}}
    if FILE in request.extensions:
        extensions[GIVEN_FILE] = request.extensions[FILE]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": CLIENT,
        "root_path": "",
        "extensions": extensions,
    }
