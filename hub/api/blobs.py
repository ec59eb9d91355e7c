"""Weights of versions, by digest: Range for downloads that go on at the last byte, the digest as ETag.

Only what a version or one of the caller's own tasks names is served; another hospital's single update never is.
"""

import re
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from hub.api.dependencies import BlobReader, ServicesOf
from hub.api.sent_bytes import SentBytes
from hub.direct_bodies import DirectBody, direct_body
from hub.errors import NotFoundError
from hub.rounds.downloads import Download, open_download

FROM_BYTE = re.compile(r"bytes=(\d{1,18})-")
IMMUTABLE = "private, max-age=31536000, immutable"

router = APIRouter()


@router.get("/v1/blobs/{name}")
def blob(name: str, request: Request, services: ServicesOf, caller: BlobReader) -> Response:
    """Return a version's weights, or the asked range of their bytes."""
    download = open_download(services, caller, name)
    tag = f'"{name}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": IMMUTABLE})
    if not download.path.is_file():
        raise NotFoundError("The blob is missing from the hub's store.", "Ask the hub's operator to restore it.")
    return _CountedFile(request.app.state.sent_bytes, download, {"ETag": tag, "Cache-Control": IMMUTABLE})


class _CountedFile(FileResponse):
    """A file that counts what it has sent, also when the reader goes away in the middle."""

    chunk_size = 1 << 20

    def __init__(self, counted: SentBytes, download: Download, headers: dict[str, str]) -> None:
        super().__init__(download.path, headers=headers, media_type="application/octet-stream")
        self._counted, self._download = counted, download
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, then note the traffic."""

        async def counted(message: Message) -> None:
            # A carrier inside this process takes the file itself (ASGI's "Path Send" extension).
            whole = message["type"] == "http.response.pathsend"
            self._sent += self._download.path.stat().st_size if whole else len(message.get("body", b""))
            await send(message)

        direct, rest = direct_body(scope), self._asked_rest(scope)
        try:
            if direct is None or rest is None:
                await super().__call__(scope, receive, counted)
            else:
                await self._send_directly(direct, rest, send)
        finally:
            if self._sent and self._download.task_id is not None:
                await self._counted.add(self._download.task_id, self._sent)

    def _asked_rest(self, scope: Scope) -> tuple[int, int] | None:
        """Return (first byte, size) if all of the file is asked for, or all from a byte on; None for anything else."""
        asked = Headers(scope=scope)
        size = self.path.stat().st_size if isinstance(self.path, Path) else 0
        found = FROM_BYTE.fullmatch(asked.get("range", "bytes=0-"))
        if scope["method"] != "GET" or "if-range" in asked or found is None or not int(found[1]) < size:
            return None
        return int(found[1]), size

    async def _send_directly(self, direct: DirectBody, rest: tuple[int, int], send: Send) -> None:
        start, size = rest
        headers = [(b"content-length", str(size - start).encode()), (b"accept-ranges", b"bytes")]
        if start:
            headers.append((b"content-range", f"bytes {start}-{size - 1}/{size}".encode()))
        fixed = [(name, value) for name, value in self.raw_headers if name not in dict(headers)]
        await send({"type": "http.response.start", "status": 206 if start else 200, "headers": [*fixed, *headers]})
        self._sent = await direct.send_file(Path(self.path), start, size - start)
        if self._sent == size - start:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
