"""The hospital's own node: its two HTTP APIs, spoken for one signed-in person.

The site's API runs as the gate's user and takes the person's token. The reading API opens images; it is sent a token
made from the first in one direction, so that it never holds what lets somebody decide on studies.
"""

import hashlib
import hmac
import ssl
from typing import Any, TypeVar

import httpx

from ui.errors import SiteUnreachableError
from ui.hub_client import TIMEOUT_SECONDS, parsed, refusal_of
from ui.site_views import (
    Budget,
    CaseEntry,
    CasePage,
    DoctorFinding,
    EgressEntry,
    GivenReading,
    IndexPage,
    ProposedStudy,
    Readiness,
    Room,
    SitePerson,
    Standing,
    StudyInWords,
    TaskEntry,
    View,
)

READING_PREFIX = "wrr_"
FOR_READING = b"wardround.site-reading-token/1"
MOST_PAGES = 20

T = TypeVar("T")


def open_site_http(url: str) -> httpx.Client:
    """Return the connection pool of this process to one API of its site.

    No proxy of the environment is used: these tokens and pictures do not leave the intranet. Certificates are checked
    against the machine's own authorities, or those of SSL_CERT_FILE.
    """
    headers = {"User-Agent": "wardround-ui"}
    trusted = ssl.create_default_context()
    return httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, headers=headers, trust_env=False, verify=trusted)


def reading_token(token: str) -> str:
    """Return what a person's token is to the reading API; it does not lead back. Pure."""
    return READING_PREFIX + hmac.digest(token.encode(), FOR_READING, hashlib.sha256).hex()


class _Api:
    """One API, as one person may use it."""

    def __init__(self, http: httpx.Client, token: str, command: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self._command = command

    def _get(self, kind: type[T], path: str, **arguments: Any) -> T:
        return parsed(kind, self._call("GET", path, **arguments), "site")

    def _post(self, kind: type[T], path: str, body: dict[str, Any]) -> T:
        return parsed(kind, self._call("POST", path, json=body), "site")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, headers=self._headers, **arguments)
        except httpx.HTTPError:
            raise SiteUnreachableError(
                f"The hospital's node at {str(self._http.base_url).rstrip('/')} does not answer.",
                f"Wait a moment; if it lasts, ask its administrator whether `{self._command}` is running.",
            ) from None
        if response.is_error:
            raise refusal_of(response, "site")
        return response


class SiteClient(_Api):
    """The site's API: studies, approvals, and what the gate keeps."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        super().__init__(http, token, "wardround site api")

    def me(self) -> SitePerson:
        """Return who the token belongs to."""
        return self._get(SitePerson, "/v1/me")

    def standing(self) -> Standing:
        """Return where the site stands."""
        return self._get(Standing, "/v1/status")

    def studies(self) -> list[ProposedStudy]:
        """Return what was proposed here."""
        return self._get(list[ProposedStudy], "/v1/studies")

    def study(self, digest: str) -> StudyInWords:
        """Return one study in plain words."""
        return self._get(StudyInWords, f"/v1/studies/{digest}")

    def decide(self, digest: str, decision: str, shown_digest: str | None = None, days: int | None = None) -> None:
        """Record a decision on a study; an approval names what was read."""
        said = {"decision": decision, "shown_digest": shown_digest, "days": days}
        body = {name: value for name, value in said.items() if value is not None}
        self._post(object, f"/v1/studies/{digest}/decision", body)

    def tasks(self) -> list[TaskEntry]:
        """Return the last tasks, the oldest first."""
        return self._get(list[TaskEntry], "/v1/tasks")

    def budget(self) -> Budget:
        """Return the privacy ledger's account."""
        return self._get(Budget, "/v1/budget")

    def egress(self) -> list[EgressEntry]:
        """Return what left, oldest first, as far as `MOST_PAGES` answers hold it."""
        found: list[EgressEntry] = []
        for _ in range(MOST_PAGES):
            page = self._get(list[EgressEntry], "/v1/egress", params={"after": len(found)})
            found += page
            if not page:
                break
        return found

    def doctor(self) -> list[DoctorFinding]:
        """Return what the doctor finds from here."""
        return self._get(list[DoctorFinding], "/v1/doctor")


class ReadingClient(_Api):
    """The reading API: index, readiness and cases."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        super().__init__(http, reading_token(token), "wardround site reading-api")

    def index(self) -> IndexPage:
        """Return what the index holds."""
        return self._get(IndexPage, "/v1/index")

    def readiness(self, digest: str) -> Readiness:
        """Return how a study's readiness report stands."""
        return self._get(Readiness, f"/v1/studies/{digest}/readiness")

    def examine(self, study: StudyInWords, *, measures: bool) -> None:
        """Have the site look whether it is ready for a study."""
        body = {"specification": study.specification, "measures": measures}
        self._post(object, f"/v1/studies/{study.digest}/readiness", body)

    def rooms(self) -> list[Room]:
        """Return the open reading rooms, the newest first."""
        return self._get(list[Room], "/v1/rooms")

    def open_room(self, study: StudyInWords) -> Room:
        """Open a study's reading room."""
        return self._post(Room, f"/v1/studies/{study.digest}/room", {"specification": study.specification})

    def cases(self, digest: str) -> list[CaseEntry]:
        """Return a room's cases."""
        return self._get(list[CaseEntry], f"/v1/studies/{digest}/cases")

    def case(self, code: str) -> CasePage:
        """Return one case."""
        return self._get(CasePage, f"/v1/cases/{code}")

    def image(self, code: str, image: int, number: int) -> bytes:
        """Return one picture as PNG; that it was asked for is recorded at the site."""
        return self._call("GET", f"/v1/cases/{code}/image", params={"image": image, "slice": number}).content

    def give_reading(self, code: str, labels: list[str], confidence: int) -> None:
        """Give one's judgement of a case; it stands."""
        self._post(object, f"/v1/cases/{code}/reading", {"labels": labels, "confidence": confidence})

    def readings(self, digest: str) -> list[GivenReading]:
        """Return all readings of a room."""
        return self._get(list[GivenReading], f"/v1/studies/{digest}/readings")

    def views(self) -> list[View]:
        """Return who looked at what, oldest first, as far as `MOST_PAGES` answers hold it."""
        found: list[View] = []
        for _ in range(MOST_PAGES):
            page = self._get(list[View], "/v1/views", params={"after": found[-1].number if found else 0})
            found += page
            if not page:
                break
        return found
