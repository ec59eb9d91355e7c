"""Sign-in to a hospital's own pages, without a browser: a token that counts, one that does not, and for how long."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from typer.testing import CliRunner

from ui import site_sign_in
from ui.cli import app as ui_app
from ui.settings import UiSettings
from ui.sign_in import Doorkeeper
from ui.site_client import open_site_http
from ui.site_sign_in import site_sign_in_routes

SITE = UiSettings("", site_url="http://site.test", reading_url="http://reading.test")
GOOD, GONE = "wrs_good", "wrs_gone"
Answer = Callable[[httpx.Request], httpx.Response]
DAY = 86400.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


def site_answers(lasts: float) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["authorization"] != f"Bearer {GOOD}":
            return httpx.Response(401, json={"message": "No token that counts.", "remedy": ""})
        return httpx.Response(200, json={"name": "anna", "role": "auditor", "ends_at": time.time() + lasts})

    return answer


@contextlib.asynccontextmanager
async def browser_at(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> AsyncIterator[httpx.AsyncClient]:
    def opened(url: str) -> httpx.Client:
        return httpx.Client(base_url=url, transport=httpx.MockTransport(answer))

    async def app(_: Request) -> PlainTextResponse:
        return PlainTextResponse("the app")

    monkeypatch.setattr(site_sign_in, "open_site_http", opened)
    routes = [*site_sign_in_routes(SITE), Route("/{path:path}", app)]
    starlette = Starlette(routes=routes, middleware=[Middleware(Doorkeeper, cookie_name=SITE.cookie_name)])
    transport = httpx.ASGITransport(starlette)
    accept = {"accept": "text/html"}
    async with httpx.AsyncClient(transport=transport, base_url="http://ui.test", headers=accept) as client:
        yield client


async def test_a_token_that_counts_goes_into_the_cookie_for_half_a_day_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async with browser_at(monkeypatch, site_answers(90 * DAY)) as browser:
        assert (await browser.get("/doctor")).headers["location"] == "/sign-in?next=/doctor"
        answer = await browser.post("/sign-in", data={"token": GOOD, "next": "/doctor"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/doctor")
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", f"Max-Age={12 * 3600}"))
        assert (await browser.get("/doctor")).text == "the app"


async def test_the_cookie_ends_with_a_token_that_ends_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    async with browser_at(monkeypatch, site_answers(60.0)) as browser:
        cookie = (await browser.post("/sign-in", data={"token": GOOD})).headers["set-cookie"]
        seconds = int(cookie.partition("Max-Age=")[2].partition(";")[0])
        assert seconds <= 60


@pytest.mark.parametrize("token", [GONE, "", "words with\na line", "é", "x" * 300])
async def test_a_token_that_does_not_count_sets_no_cookie_and_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    async with browser_at(monkeypatch, site_answers(DAY)) as browser:
        answer = await browser.post("/sign-in", data={"token": token})
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert not token or token not in answer.text.replace("xml", "")


async def test_a_form_of_another_origin_and_a_silent_site_sign_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with browser_at(monkeypatch, site_answers(DAY)) as browser:
        answer = await browser.post("/sign-in", data={"token": GOOD}, headers={"origin": "http://elsewhere.test"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)

    def silent(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    async with browser_at(monkeypatch, silent) as browser:
        answer = await browser.post("/sign-in", data={"token": GOOD})
        assert (answer.status_code, "does not answer" in answer.text) == (502, True)


def test_no_proxy_of_the_environment_sees_a_hospital_s_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    with open_site_http("http://site.test") as http:
        assert not http._mounts


def test_a_reading_api_without_a_site_is_refused() -> None:
    run = CliRunner().invoke(ui_app, ["--reading", "http://127.0.0.1:8451"])
    assert (run.exit_code, "--site" in run.output) == (1, True)


def test_the_pages_of_a_hub_and_of_a_site_have_cookies_of_their_own() -> None:
    assert UiSettings("http://a.test").cookie_name != UiSettings("http://a.test", site_url="http://b.test").cookie_name
    assert UiSettings.from_secrets(SITE.as_secrets()) == SITE
