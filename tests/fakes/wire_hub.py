"""A hub as the agent's wire sees it: tokens, mail, blobs with Range, uploads that can be cut off; no rounds."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt

from protocol.digest import digest_of_bytes, parse_json
from protocol.messages import Receipt, UpdateNotice, expect
from protocol.signing import PublicKey, SigningKey, read_unverified, sign
from site_node.agent.hub_client import HubClient

BASE_URL = "http://hub.test"


@dataclass
class WireHub:
    """Answers an httpx client in memory. `cut_after` ends a body after so many bytes; `away` refuses connections."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    transport_key: PublicKey | None = None
    mail: list[tuple[int, bytes]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    notices: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    cut_after: int | None = None
    away: bool = False
    refuses: bool = False
    tokens: int = 0
    token: str = "t0"
    signing: SigningKey | None = None

    def client(self, site: str, transport_key: SigningKey) -> HubClient:
        self.transport_key = transport_key.public
        http = httpx.Client(base_url=BASE_URL, transport=httpx.MockTransport(self.answer))
        return HubClient(http, site, transport_key)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self.away:
            raise httpx.ConnectError("no route", request=request)
        path = request.url.path
        if path == "/v1/info":
            document = {
                "service": "wardround-hub",
                "protocol_versions": [1],
                "hub_key": self.key.public.text,
                "time": 0.0,
            }
            return httpx.Response(200, json=document)
        if path == "/v1/enrolments":
            return self._enrol(request)
        if path == "/v1/token/site":
            return self._token(request)
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _refusal(401, "The token has expired.")
        return self._authorised(request, path)

    def _authorised(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "/v1/mailbox":
            after = int(request.url.params["after"])
            items = [{"number": n, "envelope": e.decode()} for n, e in self.mail if n > after]
            return httpx.Response(200, json={"items": items})
        if self.refuses:
            return _refusal(403, "This site is suspended.")
        if path == "/v1/messages":
            self.messages.append(request.content)
            return httpx.Response(200, content=self._receipt(request.content))
        if path.startswith("/v1/blobs/"):
            return self._blob(request, path.rsplit("/", 1)[1])
        return self._upload(request, path)

    def _enrol(self, request: httpx.Request) -> httpx.Response:
        message = parse_json(read_unverified(request.content))
        if message["code"] != "GOOD":
            return _refusal(403, "The invitation code does not belong to this site name.")
        return httpx.Response(200, json={"site": message["site"], "hub_key": self.key.public.text})

    def _token(self, request: httpx.Request) -> httpx.Response:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        assert self.transport_key is not None
        key = Ed25519PublicKey.from_public_bytes(self.transport_key.raw)
        claims = jwt.decode(parse_json(request.content)["assertion"], key, ["EdDSA"], audience="wardround-hub")
        assert claims["exp"] <= claims["iat"] + 300
        self.tokens += 1
        self.token = f"t{self.tokens}"
        return httpx.Response(200, json={"access_token": self.token, "expires_in": 900})

    def _blob(self, request: httpx.Request, name: str) -> httpx.Response:
        if name not in self.blobs:
            return _refusal(404, "No such blob.")
        data, start = self.blobs[name], 0
        if "Range" in request.headers:
            self.ranges.append(request.headers["Range"])
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = data[start:]
        if self.cut_after is not None:
            body, self.cut_after = body[: self.cut_after], None
        return httpx.Response(206 if start else 200, content=body)

    def _upload(self, request: httpx.Request, path: str) -> httpx.Response:
        if request.method == "POST":
            notice = expect(read_unverified(request.content), UpdateNotice)
            self.notices[notice.task_id] = request.content
            self.uploads.setdefault(notice.task_id, bytearray())
            return self._state(notice.task_id)
        upload_id = path.rsplit("/", 1)[1]
        received = self.uploads[upload_id]
        if request.method == "PATCH":
            if int(request.headers["Upload-Offset"]) != len(received):
                return _refusal(409, "The transfer stands elsewhere.")
            body = request.content
            if self.cut_after is not None:
                received += body[: self.cut_after]
                self.cut_after = None
                raise httpx.ReadError("the line went dead", request=request)
            received += body
        return self._state(upload_id)

    def _state(self, upload_id: str) -> httpx.Response:
        notice = self.notices[upload_id]
        whole = expect(read_unverified(notice), UpdateNotice).payload_bytes == len(self.uploads[upload_id])
        receipt = self._receipt(notice).decode() if whole else None
        document: dict[str, Any] = {"upload_id": upload_id, "offset": len(self.uploads[upload_id]), "receipt": receipt}
        return httpx.Response(200, json=document)

    def _receipt(self, envelope: bytes) -> bytes:
        receipt = Receipt(
            message_digest=digest_of_bytes(read_unverified(envelope)), accepted=True, received_at="2030-01-01T00:00:00Z"
        )
        return sign(receipt.canonical_bytes(), self.signing or self.key)


def _refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": "refused", "message": message, "remedy": "Ask the hub's operator."})
