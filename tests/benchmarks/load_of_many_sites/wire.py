"""One site's keep-alive connection: just enough HTTP/1.1 (RFC 9112) to cost the driver little beside the hub."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A response, read whole."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body's JSON.

        Raises: RuntimeError if the hub refused.
        """
        if self.status >= 300:
            raise RuntimeError(f"status {self.status}: {self.body[:300]!r}")
        return json.loads(self.body)


class Connection:
    """A connection that opens itself again after it was closed by the hub."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self.token = ""

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request and read its answer; once more if the kept connection had been closed meanwhile."""
        lines = [f"{method} {path} HTTP/1.1", "Host: hub", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
        async with self._turn:
            kept = self._streams is not None
            try:
                return await self._exchange(head + body)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                if not kept:
                    raise
            return await self._exchange(head + body)

    def close(self) -> None:
        """Drop the connection."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None

    async def _exchange(self, request: bytes) -> Answer:
        reader, writer = await self._open()
        writer.write(request)
        return await _read(reader)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=1 << 22)
        return self._streams


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return Answer(status, await reader.readexactly(int(fields.get("content-length", "0"))))
