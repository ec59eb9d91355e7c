"""HTTP without a network: a synchronous httpx transport onto an ASGI application in this process."""

import asyncio
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx

BASE_URL = "http://hub.in-memory"


class InMemoryTransport(httpx.BaseTransport):
    """Carry requests to an ASGI application, whose event loop runs in a thread of its own."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="in-memory hub", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request; the whole answer is read."""
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
        carried = httpx.Request(request.method, request.url, headers=request.headers, stream=_Stream(request))
        response = await self._transport.handle_async_request(carried)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


class _Stream(httpx.AsyncByteStream):
    """A synchronous request body, given out asynchronously."""

    def __init__(self, request: httpx.Request) -> None:
        self._stream = request.stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not isinstance(self._stream, httpx.SyncByteStream):
            raise TypeError("Expected a request with a synchronous body.")
        for chunk in self._stream:
            yield chunk
