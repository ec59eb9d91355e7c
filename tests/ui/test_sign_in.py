"""The cookie, the doorkeeper and the sign-in page, without a browser."""

import contextlib
import functools
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.fakes.fake_hub import PASSWORD, FakeHub
from ui.settings import UiSettings
from ui.sign_in import Doorkeeper, safe_path, sign_in_routes

PAGE = {"accept": "text/html"}


@contextlib.asynccontextmanager
async def browser_at(hub_url: str) -> AsyncIterator[httpx.AsyncClient]:
    settings = UiSettings(hub_url)

    async def app(_: Request) -> PlainTextResponse:
        return PlainTextResponse("the app")

    routes = [*sign_in_routes(settings), Route("/{path:path}", app)]
    starlette = Starlette(routes=routes, middleware=[Middleware(Doorkeeper, cookie_name=settings.cookie_name)])
    transport = httpx.ASGITransport(starlette)
    async with httpx.AsyncClient(transport=transport, base_url="http://ui.test", headers=PAGE) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_a_stranger_is_sent_to_the_sign_in_page_and_back_afterwards(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        answer = await browser.get("/rounds")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/rounds")
        form = await browser.get(answer.headers["location"])
        assert 'name="next" value="/rounds"' in form.text
        entered = await browser.post("/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/rounds"})
        assert (entered.status_code, entered.headers["location"]) == (303, "/rounds")
        assert (await browser.get("/rounds")).text == "the app"


async def test_the_cookie_is_out_of_reach_of_scripts_and_ends_with_the_token(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        answer = await browser.post("/sign-in", data={"name": "ada", "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Max-Age=28800" in cookie
        assert "token-of-ada" not in answer.headers["location"]


async def test_a_wrong_password_says_so_and_sets_no_cookie(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        answer = await browser.post("/sign-in", data={"name": "ada", "password": "wrong"})
        assert answer.status_code == 401
        assert "Name and password do not match" in answer.text
        assert 'value="ada"' in answer.text
        assert "set-cookie" not in answer.headers


async def test_who_must_wait_is_told_how_long_and_the_hub_is_told_whose_browser_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []

    def delay(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("x-forwarded-for"))
        return httpx.Response(429, headers={"Retry-After": "64"})

    client = functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(delay))
    async with browser_at("http://hub.test") as browser:
        monkeypatch.setattr(httpx, "AsyncClient", client)
        form = {"name": "ada", "password": PASSWORD}
        answer = await browser.post("/sign-in", data=form)
        for before in (b"192.0.2.7", b"made up, 192.0.2.8", b"x" * 1000, b"\xe9"):
            await browser.post("/sign-in", data=form, headers=[(b"x-forwarded-for", before)])
    assert answer.status_code == 429
    assert "Try again in 64 seconds." in answer.text
    own = "127.0.0.1"
    assert seen == [own, f"192.0.2.7, {own}", f"made up, 192.0.2.8, {own}", own, own]
    assert "set-cookie" not in answer.headers


async def test_a_form_from_another_site_is_refused(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        fields = {"name": "ada", "password": PASSWORD}
        answer = await browser.post("/sign-in", data=fields, headers={"origin": "https://evil.test"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_a_hub_that_is_away_is_not_blamed_on_the_password() -> None:
    async with browser_at("http://127.0.0.1:9") as browser:
        answer = await browser.post("/sign-in", data={"name": "ada", "password": PASSWORD})
        assert answer.status_code == 502
        assert "does not answer" in answer.text


async def test_an_oversized_form_is_not_read_to_its_end(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        answer = await browser.post("/sign-in", content=b"name=" + b"x" * 100_000)
        assert answer.status_code == 401


async def test_signing_out_takes_the_cookie_away(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        await browser.post("/sign-in", data={"name": "ada", "password": PASSWORD})
        answer = await browser.get("/sign-out")
        assert answer.headers["location"] == "/sign-in?notice=out"
        assert (await browser.get("/rounds")).status_code == 303


async def test_another_site_cannot_sign_someone_out(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        await browser.post("/sign-in", data={"name": "ada", "password": PASSWORD})
        await browser.get("/sign-out", headers={"sec-fetch-site": "cross-site"})
        assert (await browser.get("/rounds")).text == "the app"


async def test_the_name_is_escaped_in_the_page(hub: FakeHub) -> None:
    async with browser_at(hub.url) as browser:
        answer = await browser.post("/sign-in", data={"name": '"><script>', "password": "x"})
        assert "<script>" not in answer.text


@pytest.mark.parametrize(
    "target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:alert(1)", "", "/a\nSet-Cookie: x"]
)
async def test_after_signing_in_nobody_lands_elsewhere(target: str) -> None:
    assert safe_path(target) == "/"


async def test_a_path_of_this_site_is_kept() -> None:
    assert safe_path("/rounds?study=x") == "/rounds?study=x"
