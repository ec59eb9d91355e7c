from pathlib import Path

import httpx

from compose.in_memory import BASE_URL, InMemoryTransport
from hub.direct_bodies import given_file
from site_node.agent.hub_client import FILE


async def echo(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["raw_path"])]})
    await send({"type": "http.response.body", "body": body})


def test_a_streamed_request_reaches_the_application_and_is_answered() -> None:
    with httpx.Client(transport=InMemoryTransport(echo), base_url=BASE_URL) as client:
        response = client.post("/a/b", content=iter([b"one ", b"two"]))
    assert (response.status_code, response.content, response.headers["x-path"]) == (201, b"one two", "/a/b")


def test_requests_follow_each_other_on_one_loop() -> None:
    with httpx.Client(transport=InMemoryTransport(echo), base_url=BASE_URL) as client:
        assert [client.post("/", content=str(n)).text for n in range(20)] == [str(n) for n in range(20)]


async def send_file(scope, _, send) -> None:  # type: ignore[no-untyped-def]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.pathsend", "path": scope["path"]})


def test_an_answer_that_is_a_file_is_named_and_its_bytes_can_be_had_too(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    with httpx.Client(transport=InMemoryTransport(send_file), base_url=BASE_URL) as client:
        response = client.get(str(tmp_path / "blob"))
    assert (response.extensions[FILE], response.content) == (tmp_path / "blob", b"weights")


def test_a_requests_file_is_named_to_the_application_beside_its_bytes() -> None:
    seen = []

    async def look(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append(given_file(scope))
        await echo(scope, receive, send)

    with httpx.Client(transport=InMemoryTransport(look), base_url=BASE_URL) as client:
        assert client.post("/", content=b"update", extensions={FILE: Path("/outbox/payload")}).content == b"update"
        client.post("/", content=b"update", headers={"wardround.given-file": "/etc/passwd"})
    assert seen == [Path("/outbox/payload"), None]
