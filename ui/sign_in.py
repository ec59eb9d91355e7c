"""Sign-in outside Streamlit's script: an own page, an HttpOnly cookie, and a doorkeeper before the app's first byte.

The hub's token goes from the hub's answer into the cookie and from the cookie into the hub's next request; it is never
in a URL, never in the page's text and never in reach of a script in the browser. The cookie ends with the token.
Requests that change something are refused when they come from another origin, so that no foreign page signs someone in
or out.
"""

import base64
import html
from collections.abc import Awaitable, Callable
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.hub_client import TIMEOUT_SECONDS
from ui.settings import UiSettings

MAX_FORM_BYTES = 8 * 1024
MAX_FORWARDED_CHARACTERS = 500
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
OPEN_PREFIXES = (SIGN_IN, SIGN_OUT, "/_stcore/", "/static/", "/media/", "/component/")
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOTICES = {
    "out": "You are signed out.",
    "expired": "Your session has ended. Please sign in again.",
}

FIELDS = """\
<label for="name">Name</label><input id="name" name="name" value="$name" autocomplete="username" autocapitalize="none"
   spellcheck="false" required autofocus>
  <label for="password">Password</label><input id="password" name="password" type="password"
   autocomplete="current-password" required>"""
FOOT = "No account yet, or a forgotten password? The hub's operator can help."

Handler = Callable[[Request], Awaitable[Response]]


class TokenAnswer(BaseModel):
    """The hub's answer to a right name and password."""

    access_token: str
    expires_in: int


class _DelayedError(Exception):
    """The hub makes this sign-in wait."""

    def __init__(self, seconds: str) -> None:
        wait = f"in {seconds} seconds" if seconds.isdecimal() else "later"
        super().__init__(f"There were too many wrong passwords. Try again {wait}.")


def sign_in_routes(settings: UiSettings) -> list[Route]:
    """Return the routes that set and clear the cookie, for `st.App`."""

    async def show(request: Request) -> Response:
        notice = NOTICES.get(request.query_params.get("notice", ""), "")
        return _page(settings, request.query_params.get("next", "/"), info=notice)

    async def enter(request: Request) -> Response:
        if not same_origin(request):
            return _page(settings, "/", problem="That form came from another site. Sign in here.", status=403)
        form = await form_of(request)
        name, target = form.get("name", "").strip(), safe_path(form.get("next", "/"))
        try:
            token = await _token(settings.hub_url, name, form.get("password", ""), _forwarded_for(request))
        except _DelayedError as delayed:
            return _page(settings, target, name, problem=str(delayed), status=429)
        except httpx.HTTPError:
            problem = f"The hub at {settings.hub_url} does not answer. Try again in a moment, or ask its operator."
            return _page(settings, target, name, problem=problem, status=502)
        if token is None:
            problem = "Name and password do not match. Check both; the hub's operator can set a new password."
            return _page(settings, target, name, problem=problem, status=401)
        return signed_in(request, settings, target, token.access_token, token.expires_in)

    return [
        Route(SIGN_IN, show, methods=["GET"]),
        Route(SIGN_IN, enter, methods=["POST"]),
        sign_out_route(settings),
    ]


def signed_in(request: Request, settings: UiSettings, target: str, token: str, seconds: int) -> Response:
    """Return the way on, with the cookie that holds the token for so many seconds."""
    answer = RedirectResponse(target, status_code=303, headers=SECURITY_HEADERS)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(settings.cookie_name, token, max_age=seconds, httponly=True, samesite="lax", secure=is_secure)
    return answer


def sign_out_route(settings: UiSettings) -> Route:
    """Return the route that clears the cookie."""

    async def leave(request: Request) -> Response:
        notice = "expired" if request.query_params.get("notice") == "expired" else "out"
        answer = RedirectResponse(f"{SIGN_IN}?notice={notice}", status_code=303, headers=SECURITY_HEADERS)
        if request.headers.get("sec-fetch-site", "same-origin") in {"same-origin", "none"}:
            answer.delete_cookie(settings.cookie_name, httponly=True, samesite="lax")
        return answer

    return Route(SIGN_OUT, leave, methods=["GET"])


class Doorkeeper:
    """ASGI middleware: a page asked for without the cookie becomes the sign-in page.

    It keeps a stranger from an empty app; what a person may see is the hub's decision, at each call with the token.
    """

    def __init__(self, app: ASGIApp, cookie_name: str) -> None:
        self._app = app
        self._cookie_name = cookie_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or redirect."""
        if scope["type"] == "http" and self._is_stranger(Request(scope)):
            path = scope["path"]
            target = SIGN_IN if path == "/" else f"{SIGN_IN}?next={quote(path)}"
            await RedirectResponse(target, status_code=303, headers=SECURITY_HEADERS)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_stranger(self, request: Request) -> bool:
        asks_for_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        is_open = request.url.path.startswith(OPEN_PREFIXES)
        return asks_for_page and not is_open and self._cookie_name not in request.cookies


def safe_path(target: str) -> str:
    r"""Return `target` if it is a path of this site, else "/".

    Guarantee: never another host: neither "//host" nor "/\host", which browsers read as one.
    """
    parts = urlsplit(target)
    is_here = target.startswith("/") and not target.startswith("//") and "\\" not in target
    return target if is_here and not parts.scheme and not parts.netloc and target.isprintable() else "/"


async def _token(hub_url: str, name: str, password: str, forwarded_for: str) -> TokenAnswer | None:
    # The hub delays an address after wrong passwords: it must be the browser's, not this server's that all share.
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    async with httpx.AsyncClient(base_url=hub_url, timeout=TIMEOUT_SECONDS, headers=headers) as http:
        response = await http.post("/v1/token/person", json={"name": name, "password": password})
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise _DelayedError(response.headers.get("retry-after", ""))
    if response.is_server_error:
        raise httpx.HTTPError("server error")
    try:
        return TokenAnswer.model_validate_json(response.content) if response.is_success else None
    except ValidationError:
        raise httpx.HTTPError("not a token") from None


def _forwarded_for(request: Request) -> str:
    """Return the way the request came, the last step added here; the hub reads it from its trusted end."""
    before = ", ".join(request.headers.getlist("x-forwarded-for"))
    is_usable = before.isascii() and len(before) <= MAX_FORWARDED_CHARACTERS
    return ", ".join(
        part for part in (before if is_usable else "", request.client.host if request.client else "") if part
    )


async def form_of(request: Request) -> dict[str, str]:
    """Return what a form says, each field once; nothing if it is longer than any that is meant."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            return {}
    return {key: values[0] for key, values in parse_qs(body.decode(errors="replace")).items()}


def same_origin(request: Request) -> bool:
    """Tell whether a form was sent from a page of ours."""
    origin = request.headers.get("origin")
    return origin in {None, "null"} or urlsplit(str(origin)).netloc == request.headers.get("host")


def sign_in_page(
    lead: str, fields: str, foot: str, target: str, *, problem: str = "", info: str = "", status: int = 200
) -> Response:
    """Return the sign-in page; `fields` is markup."""
    kind, words = ("bad", problem) if problem else ("info", info)
    message = f'<p class="message {kind}" role="alert">{html.escape(words)}</p>' if words else ""
    text = Template(_theme("sign_in.html").decode()).substitute(
        lead=html.escape(lead),
        fields=fields,
        foot=html.escape(foot),
        next=html.escape(safe_path(target)),
        message=message,
        mark=_data_uri("mark.svg"),
        logo=_data_uri("logo.svg"),
    )
    return HTMLResponse(text, status_code=status, headers=SECURITY_HEADERS)


def _page(settings: UiSettings, target: str, name: str = "", **said: Any) -> Response:
    lead = f"to the hub at {urlsplit(settings.hub_url).netloc}"
    return sign_in_page(lead, FIELDS.replace("$name", html.escape(name)), FOOT, target, **said)


def _data_uri(name: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(_theme(name)).decode()


def _theme(name: str) -> bytes:
    return (files("ui") / "theme" / name).read_bytes()
