"""What every route states: who may call it (`may`), and how large its body may be (`body_up_to`)."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request

from hub.api.callers import Callers
from hub.auth.identity import NOBODY, Caller
from hub.auth.roles import Permission, permits, roles_with
from hub.errors import AuthenticationError, NotPermittedError, RequestError, RequestTooLargeError
from hub.services import Services
from protocol.digest import parse_json
from protocol.errors import DigestError


async def services_of(request: Request) -> Services:
    """Return the hub's services, which the application was assembled with.

    Async, though it waits for nothing: a plain function would be run in a handlers' thread, and a site's poll would
    queue there behind all that wait to write.
    """
    services: Services = request.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(services_of)]


class May:
    """A dependency that lets only callers with a permission pass; `permission` is what a test reads."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:
        """Return the caller.

        Raises: AuthenticationError without a valid token, NotPermittedError if the role lacks the permission.
        """
        if self.permission is Permission.ANYONE:
            return NOBODY
        callers: Callers = request.app.state.callers
        caller = await callers.of(_bearer_token(request))
        if not permits(caller.role, self.permission):
            roles = " or ".join(roles_with(self.permission))
            raise NotPermittedError(f"{_with_article(caller.role)} may not do this.", f"Sign in as {roles}.")
        return caller


def _with_article(word: str) -> str:
    return f"{'An' if word[:1] in 'aeiou' else 'A'} {word}"


def may(permission: Permission) -> May:
    """Return the dependency of a route that asks for a permission."""
    return May(permission)


Anyone = Annotated[Caller, Depends(may(Permission.ANYONE))]
Reader = Annotated[Caller, Depends(may(Permission.READ))]
Researcher = Annotated[Caller, Depends(may(Permission.PROPOSE))]
Clinician = Annotated[Caller, Depends(may(Permission.DECIDE))]
Operator = Annotated[Caller, Depends(may(Permission.ADMINISTER))]
Site = Annotated[Caller, Depends(may(Permission.TAKE_PART))]
BlobReader = Annotated[Caller, Depends(may(Permission.FETCH_BLOBS))]


def body_up_to(limit_bytes: int) -> Callable[[Request], Coroutine[Any, Any, bytes]]:
    """Return a dependency that reads a body of at most so many bytes.

    Guarantee: a larger body is refused by its announced length before a byte is read, or else while it comes in.
    """

    async def read(request: Request) -> bytes:
        announced = request.headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit_bytes:
                raise _too_large(limit_bytes)
        return bytes(data)

    return read


def text_fields(body: bytes, *required: str, optional: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the text fields of a small JSON body.

    Raises: RequestError if one is missing, unknown or no text.
    """
    try:
        data = parse_json(body)
    except DigestError:
        data = None
    known = {*required, *optional}
    if not isinstance(data, dict) or not set(required) <= set(data) <= known:
        raise RequestError("Expected a JSON object.", f"Its fields: {', '.join([*required, *optional])}.")
    if not all(isinstance(value, str) for value in data.values()):
        raise RequestError("Every field must be text.", f"The fields: {', '.join([*required, *optional])}.")
    return dict.fromkeys(optional, "") | data


def _bearer_token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise AuthenticationError(
            "This needs a bearer token.", "Sign in first (POST /v1/token/person or /v1/token/site)."
        )
    return token.strip()


def _too_large(limit_bytes: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The hub reads at most {limit_bytes} bytes here.", "Send less, or use an upload.")
