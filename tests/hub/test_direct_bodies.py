"""Bodies that go past the event loop: the same bytes, the same answers, the next request on the same connection."""

import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from hub.direct_bodies import BUFFER_BYTES, DirectProtocol, direct_body

SIZE = 3 * BUFFER_BYTES + 17


Connection = http.client.HTTPConnection


class Echo:
    """PUT takes a body directly, POST in the usual way, GET sends the file that came last."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "body"
        self.stop_after: int | None = None
        self.full = False
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        direct = direct_body(scope)
        assert direct is not None
        if scope["method"] == "GET":
            size = self.file.stat().st_size
            await self._start(send, size)
            self.sent = await direct.send_file(self.file, 0, size)
            if self.sent == size:
                await send({"type": "http.response.body", "body": b""})
            return
        length = int(dict(scope["headers"])[b"content-length"])
        got = bytearray()

        def take(data: memoryview) -> bool:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            got.extend(data)
            return self.stop_after is None or len(got) < self.stop_after

        if scope["method"] == "PUT":
            try:
                await direct.read(length, take)
            except OSError:
                got[:] = b"no room"
        else:
            while len(got) < length:
                got += (await receive())["body"]
        self.file.write_bytes(got)
        answer = str(len(got)).encode()
        await self._start(send, len(answer))
        await send({"type": "http.response.body", "body": answer})

    async def _start(self, send: Any, length: int) -> None:
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


Served = tuple[Echo, Connection]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    app = Echo(tmp_path)
    server = uvicorn.Server(
        uvicorn.Config(app, http=DirectProtocol, loop="uvloop", log_level="critical", lifespan="off")
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        connection = Connection("127.0.0.1", listening.getsockname()[1], timeout=30)
        yield app, connection
        connection.close()
        server.should_exit = True
        thread.join()


def asked(connection: Connection, method: str, body: bytes | None = None) -> bytes:
    connection.request(method, "/", body=body)
    return connection.getresponse().read()


def test_a_body_comes_and_goes_whole_and_the_connection_serves_on(
    served: Served,
) -> None:
    app, connection = served
    for _ in range(3):
        data = os.urandom(SIZE)
        assert asked(connection, "PUT", data) == str(SIZE).encode()
        assert app.file.read_bytes() == data
        assert asked(connection, "GET") == data
    assert asked(connection, "POST", b"as usual") == b"8"


def test_a_body_in_small_slow_pieces_comes_whole(served: Served) -> None:
    app, connection = served
    data = os.urandom(5000)
    pieces = (data[start : start + 500] for start in range(0, len(data), 500))
    connection.request("PUT", "/", body=pieces, headers={"Content-Length": "5000"})
    assert connection.getresponse().read() == b"5000"
    assert app.file.read_bytes() == data


def test_what_is_not_wanted_any_more_is_read_and_dropped(served: Served) -> None:
    app, connection = served
    app.stop_after = 1
    taken = int(asked(connection, "PUT", os.urandom(SIZE)))
    assert taken < SIZE
    app.stop_after = None
    assert asked(connection, "PUT", b"next") == b"4"


def test_bytes_that_cannot_be_kept_are_read_to_the_end_so_that_the_answer_is(served: Served) -> None:
    app, connection = served
    app.full = True
    assert asked(connection, "PUT", os.urandom(SIZE)) == b"7"
    assert app.file.read_bytes() == b"no room"
    app.full = False
    assert asked(connection, "PUT", b"next") == b"4"


def test_a_sender_that_goes_away_leaves_the_others_alone(served: Served) -> None:
    _, connection = served
    with socket.create_connection((connection.host, connection.port)) as cut:
        cut.sendall(b"PUT / HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\nonly the beginning")
    assert asked(connection, "PUT", b"whole") == b"5"


def test_a_reader_that_goes_away_is_counted_by_what_it_took(served: Served) -> None:
    app, connection = served
    large = 64 << 20
    asked(connection, "PUT", b"\0" * large)
    app.sent = -1
    with socket.create_connection((connection.host, connection.port)) as cut:
        cut.sendall(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
        cut.recv(1000)
    while app.sent < 0:
        time.sleep(0.01)
    assert app.sent < large
    assert asked(connection, "PUT", b"next") == b"4"
