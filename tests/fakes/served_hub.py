"""`WireHub` behind a real socket, with TLS, a clock that may be wrong, and a proxy that lets nobody through."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.fakes.wire_hub import WireHub


@contextmanager
def served(hub: WireHub, certificate: tuple[Path, Path] | None = None, *, ahead_seconds: float = 0.0) -> Iterator[str]:
    """Serve a hub on a port of its own and yield its address; its clock is ahead of ours by so much."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = hub.answer(
                httpx.Request(self.command, f"http://hub.test{self.path}", headers=dict(self.headers), content=body)
            )
            content = answer.read()
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/octet-stream"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_any  # noqa: N815 - names of the standard library

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(time.time() + ahead_seconds))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the standard library calls it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{scheme}://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
