"""The only file that speaks to the hub: plain HTTP with JSON and binary bodies, outbound only.

The site proves who it is with an assertion signed by its transport key (RFC 7523, EdDSA) and gets a short-lived token.
What a message *says* is proven by the gate's signature, never by this connection.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpcore
import httpx
import jwt

from protocol.digest import hex_of
from protocol.signing import SigningKey
from site_node.errors import HubRefusedError, HubUnreachableError

AUDIENCE = "wardround-hub"
ASSERTION_SECONDS = 240
TOKEN_MARGIN_SECONDS = 30.0
ANSWER_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_ANSWER_CHARACTERS = 300
PIECE_BYTES = 256 << 10
READ_BYTES = 512 << 10
"""Taken from a connection at once. A model comes in pieces, each of which costs its way through three libraries."""
FILE = "wardround.file"
"""The httpx extension by which a carrier inside this process hands a file over; over a network there is none."""


@dataclass(frozen=True)
class MailItem:
    """One envelope of the mailbox, as received."""

    number: int
    envelope: bytes


@dataclass(frozen=True)
class UploadState:
    """How far an upload has come; `receipt` is the hub's answer once it is complete."""

    upload_id: str
    offset: int
    receipt: bytes | None


@dataclass(frozen=True)
class FilePart:
    """A stretch of a file, read in pieces while it is sent; each iteration begins anew. `path` is the whole file's."""

    file: BinaryIO
    offset: int
    count: int
    path: Path | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield the bytes."""
        self.file.seek(self.offset)
        left = self.count
        while left and (piece := self.file.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece


@dataclass(frozen=True)
class Download:
    """Where the bytes of a blob really begin, and the bytes in pieces; `file` holds them all, if the hub is here."""

    starts_at: int
    pieces: Iterator[bytes]
    file: Path | None = None


class HubClient:
    """One site's connection. `http` carries the hub's base URL; the simulator gives one without a network."""

    def __init__(
        self, http: httpx.Client, site: str, transport_key: SigningKey, clock: Callable[[], float] = time.time
    ) -> None:
        self._http = http
        self._site = site
        self._key = transport_key
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._token_ends_at = 0.0

    def info(self) -> dict[str, Any]:
        """Return who the hub says it is; needs no enrolment."""
        return _document(self._plain("GET", "/v1/info"))

    def enroll(self, envelope: bytes) -> dict[str, Any]:
        """Hand in the site's keys with the one-time code.

        Raises: HubRefusedError if the code is wrong or has expired.
        """
        return _document(self._plain("POST", "/v1/enrolments", content=envelope))

    def mailbox(self, after: int, wait_seconds: float) -> list[MailItem]:
        """Return the mail after a number, waiting for it up to so many seconds."""
        timeout = httpx.Timeout(ANSWER_SECONDS + wait_seconds, connect=CONNECT_SECONDS)
        params = {"after": str(after), "wait": f"{wait_seconds:g}"}
        found = _document(self._authorised("GET", "/v1/mailbox", params=params, timeout=timeout))
        try:
            return [MailItem(int(item["number"]), str(item["envelope"]).encode()) for item in found["items"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected("a mailbox") from error

    def post_message(self, envelope: bytes) -> bytes:
        """Deliver a signed message and return the hub's signed receipt."""
        return self._authorised("POST", "/v1/messages", content=envelope).content

    def open_upload(self, notice: bytes) -> UploadState:
        """Announce a payload; the same announcement again returns how far it has come."""
        return _upload_state(self._authorised("POST", "/v1/uploads", content=notice))

    def upload_state(self, upload_id: str) -> UploadState:
        """Return how far an upload has come."""
        return _upload_state(self._authorised("GET", f"/v1/uploads/{upload_id}"))

    def send_part(self, upload_id: str, part: FilePart) -> UploadState:
        """Send the bytes that follow the part's offset."""
        headers = {
            "Upload-Offset": str(part.offset),
            "Content-Length": str(part.count),
            "Content-Type": "application/octet-stream",
        }
        own = {} if part.path is None else {FILE: part.path}
        path = f"/v1/uploads/{upload_id}"
        return _upload_state(self._authorised("PATCH", path, content=part, headers=headers, extensions=own))

    @contextmanager
    def blob(self, digest: str, offset: int) -> Iterator["Download"]:
        """Open a blob from an offset."""
        plain = {"Accept-Encoding": "identity"}  # the digest is of the bytes as they lie at the hub
        headers = self._with_token(plain | ({"Range": f"bytes={offset}-"} if offset else {}))
        with (
            _translated(self._http.base_url),
            self._http.stream("GET", f"/v1/blobs/{hex_of(digest)}", headers=headers, timeout=_timeout()) as response,
        ):
            if response.status_code >= httpx.codes.BAD_REQUEST:
                response.read()
                _check(response)
            starts_at = offset if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
            yield Download(starts_at, response.iter_bytes(), response.extensions.get(FILE))

    def _authorised(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = arguments.pop("headers", {})
        try:
            return self._plain(method, path, headers=self._with_token(headers), **arguments)
        except HubRefusedError as error:
            if error.status != httpx.codes.UNAUTHORIZED:
                raise
        self._token = ""  # it ended before its time: the hub was restarted with another key, or the clocks differ
        return self._plain(method, path, headers=self._with_token(headers), **arguments)

    def _with_token(self, headers: dict[str, str]) -> dict[str, str]:
        return {**headers, "Authorization": f"Bearer {self._bearer()}"}

    def _bearer(self) -> str:
        with self._lock:
            if not self._token or self._clock() >= self._token_ends_at:
                answer = _document(self._plain("POST", "/v1/token/site", json={"assertion": self._assertion()}))
                try:
                    self._token = str(answer["access_token"])
                    self._token_ends_at = self._clock() + float(answer["expires_in"]) - TOKEN_MARGIN_SECONDS
                except (KeyError, TypeError, ValueError) as error:
                    raise _unexpected("a token") from error
            return self._token

    def _assertion(self) -> str:
        now = int(self._clock())
        claims = {
            "iss": self._site,
            "sub": self._site,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(claims, self._key.private, algorithm="EdDSA")

    def _plain(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        arguments.setdefault("timeout", _timeout())
        with _translated(self._http.base_url):
            response = self._http.request(method, path, **arguments)
        _check(response)
        return response


def connect(hub_url: str) -> httpx.Client:
    """Return an HTTP client for a hub; proxies are taken from the environment, as hospitals set them."""
    httpcore.HTTP11Connection.READ_NUM_BYTES = READ_BYTES
    return httpx.Client(base_url=hub_url, timeout=_timeout(), follow_redirects=False)


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)


@contextmanager
def _translated(url: httpx.URL) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise HubUnreachableError(
            f"The hub at {url} does not answer ({type(error).__name__}).",
            "Check the address in site.yaml, the network and the proxy.",
        ) from error


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        body = response.json()
        message, remedy = str(body["message"])[:MAX_ANSWER_CHARACTERS], str(body.get("remedy", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, remedy = f"The hub answered with status {response.status_code}.", "Is the address a Wardround hub's?"
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in (408, 425, 429):
        raise HubUnreachableError(message, remedy)
    raise HubRefusedError(message, remedy[:MAX_ANSWER_CHARACTERS], response.status_code)


def _document(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError as error:
        raise _unexpected("JSON") from error
    if not isinstance(document, dict):
        raise _unexpected("a JSON object")
    return document


def _upload_state(response: httpx.Response) -> UploadState:
    found = _document(response)
    try:
        receipt = found["receipt"]
        return UploadState(
            str(found["upload_id"]), int(found["offset"]), receipt if receipt is None else receipt.encode()
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unexpected("an upload's state") from error


def _unexpected(what: str) -> HubUnreachableError:
    return HubUnreachableError(f"The hub's answer is not {what}.", "Is the address in site.yaml a Wardround hub's?")
