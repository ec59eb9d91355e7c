"""Errors as answers: {"error": code, "message": sentence, "remedy": sentence} with the right HTTP status."""

import errno
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hub import errors
from hub.storage.database import DBAPIError, lacked_room
from protocol.errors import AccountingError, DigestError, ProtocolError, SignatureError, SpecificationError

_log = structlog.get_logger()

# The nearest class in an error's ancestry decides.
STATUS: dict[type[Exception], int] = {
    errors.HubError: 500,
    errors.NotFoundError: 404,
    errors.StateError: 409,
    errors.RequestError: 400,
    errors.RequestTooLargeError: 413,
    errors.AuthenticationError: 401,
    errors.SignInDelayedError: 429,
    errors.InvitationError: 403,
    errors.NotPermittedError: 403,
    errors.AdmissionError: 422,
    errors.ChargeMissingError: 409,
    errors.BlobError: 400,
    ProtocolError: 400,
    SignatureError: 403,
    SpecificationError: 422,
    AccountingError: 422,
}


def install(app: FastAPI) -> None:
    """Give the application its error answers."""
    app.add_exception_handler(errors.HubError, _hub_error)
    app.add_exception_handler(ProtocolError, _protocol_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _perhaps_no_room)
    app.add_exception_handler(DBAPIError, _perhaps_no_room)
    app.add_exception_handler(Exception, _unexpected)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error of ours."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def _answer(status: int, code: str, message: str, remedy: str, **more: Any) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": code, "message": message, "remedy": remedy, **more}, status, headers)


async def _hub_error(_request: Request, error: Exception) -> JSONResponse:
    code, message, remedy = (
        getattr(error, "code", "hub-error"),
        getattr(error, "message", ""),
        getattr(error, "remedy", ""),
    )
    answer = _answer(status_of(error), code, message, remedy)
    if isinstance(error, errors.SignInDelayedError):
        answer.headers["Retry-After"] = str(error.seconds)
    return answer


async def _protocol_error(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, SpecificationError):
        remedy = "Correct what is listed; `wardround hub study-schema` describes every key."
        return _answer(422, "bad-study", str(error), remedy, problems=error.problems)
    code = "bad-signature" if isinstance(error, SignatureError) else "bad-message"
    if isinstance(error, DigestError):
        return _answer(400, "bad-digest", str(error), "Send a digest that a task or version names.")
    return _answer(status_of(error), code, str(error), "Both sides must run the same version of Wardround.")


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    fields = ", ".join(sorted({".".join(str(part) for part in problem["loc"]) for problem in found}))
    return _answer(422, "bad-request", f"Missing or unusable: {fields}.", "See the API at /v1/openapi.json.")


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {404: "There is nothing at this address.", 405: "This address does not take this method."}
    message = sentence.get(status, "The request failed.")
    return _answer(status, f"http-{status}", message, "See the API at /v1/openapi.json.")


async def _perhaps_no_room(request: Request, error: Exception) -> JSONResponse:
    full = lacked_room(error) if isinstance(error, DBAPIError) else _errno_of(error) in (errno.ENOSPC, errno.EDQUOT)
    if not full:
        raise error
    _log.error("disk_full", path=request.url.path, remedy="Make room on the hub's disk; it goes on by itself.")
    remedy = "Its operator must make room; the same request may then be sent again."
    return _answer(507, "disk-full", "The hub's disk is full.", remedy)


def _errno_of(error: Exception) -> int | None:
    return error.errno if isinstance(error, OSError) else None


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("request_failed", path=request.url.path, error=type(error).__name__, exc_info=error)
    return _answer(
        500, "internal", "The hub failed at this request.", "Its log says why; the request may be sent again."
    )
