import httpx

from compose.in_memory import BASE_URL, InMemoryTransport


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
