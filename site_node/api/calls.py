"""What the site's two HTTP APIs share: who calls, how they are refused, what every answer says, how long a body may be.

The one runs as the gate's user (`api/app.py`), the other as the worker's (`reading/app.py`). Neither offers pages of
documentation: these would load scripts from elsewhere.
"""

from collections.abc import Awaitable, Callable, Collection

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from site_node.api.roles import Page, may_call
from site_node.api.tokens import Caller
from site_node.errors import CohortError, GateError, IndexingError, SettingsError, SiteError

CLOSED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
CallerOf = Callable[[str, float], Caller | None]
"""Says whose token this is at a time, or None if it counts for nobody."""


class RefusedCallError(Exception):
    """A call that is answered with a status and a sentence."""

    def __init__(self, status: int, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.remedy = status, message, remedy


def closed_app(title: str, caller_of: CallerOf, *, most_bytes: int, keys: Collection[str], how_to_post: str) -> FastAPI:
    """Return an application without routes. `keys` are those of bodies and questions, and may be named in an answer."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.caller_of = caller_of
    app.middleware("http")(_bounded_by(most_bytes))
    app.add_exception_handler(RefusedCallError, _refused)
    app.add_exception_handler(SiteError, _refused)
    app.add_exception_handler(RequestValidationError, _misunderstood_of(frozenset(keys), how_to_post))
    return app


def allowed(page: Page) -> Callable[[Request], Caller]:
    """Return the dependency that lets in whom the table of roles names for a page (`roles.py`)."""

    def caller(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known: Caller | None = None
        if scheme.lower() == "bearer":
            known = request.app.state.caller_of(token.strip(), request.app.state.clock())
        if known is None:
            raise RefusedCallError(401, "No token that counts.", "Ask for one: `wardround site tokens add DIR NAME`.")
        if not may_call(known.role, page):
            raise RefusedCallError(403, f"This page is not for the role {known.role}.")
        request.state.caller = known
        return known

    return caller


def _bounded_by(most_bytes: int) -> Callable[[Request, Callable[[Request], Awaitable[Response]]], Awaitable[Response]]:
    async def bounded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse a body that is longer than any that is meant, or that does not say how long it is."""
        length = request.headers.get("content-length", "0")
        if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > most_bytes:
            response: Response = JSONResponse({"message": "The body is too long.", "remedy": ""}, 413)
        else:
            response = await call_next(request)
        response.headers.update(CLOSED)
        return response

    return bounded


def _misunderstood_of(keys: frozenset[str], how_to_post: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def misunderstood(request: Request, error: Exception) -> Response:
        """Say which keys are wrong and how it is done, without repeating what was sent."""
        where = [entry["loc"] for entry in error.errors()] if isinstance(error, RequestValidationError) else []
        wrong = list(dict.fromkeys(str(place[1]) for place in where if len(place) > 1 and place[1] in keys))
        message = (
            f"Not usable: {', '.join(wrong)}." if wrong else "The call's body is not of the form that is asked for."
        )
        remedy = how_to_post if request.method == "POST" else "A number is asked for."
        return JSONResponse({"message": message, "remedy": remedy}, 422)

    return misunderstood


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, RefusedCallError):
        return JSONResponse({"message": error.message, "remedy": error.remedy}, error.status)
    known = error if isinstance(error, SiteError) else GateError("It failed.", "See the log.")
    status = 409 if isinstance(error, SettingsError | IndexingError | CohortError) else 500
    return JSONResponse({"message": known.message, "remedy": known.remedy}, status)
