"""The only way out: the hub's HTTP API, spoken for one signed-in person.

One `httpx.Client` serves the whole process (`open_http`); a `HubClient` adds the person's token to each call, so that
two people never share one. Every failure becomes one of `ui.errors`, with the hub's own sentence and remedy if it has
them.
"""

from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from ui.errors import HubAnswerError, HubRefusedError, HubUnreachableError, SignedOutError
from ui.views import (
    AuditEntry,
    AuditPage,
    AuditVerdict,
    Invitation,
    Person,
    PersonEntry,
    Round,
    Site,
    Study,
    StudyCheck,
    Version,
)

TIMEOUT_SECONDS = 30.0
AUDIT_PAGE_ENTRIES = 500
AUDIT_MOST_ENTRIES = 5000

T = TypeVar("T")


def open_http(hub_url: str) -> httpx.Client:
    """Return the connection pool of this process to its hub."""
    return httpx.Client(base_url=hub_url, timeout=TIMEOUT_SECONDS, headers={"User-Agent": "wardround-ui"})


class HubClient:
    """The hub, as one person may use it."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    def me(self) -> Person:
        """Return who the token belongs to."""
        return self._get(Person, "/v1/me")

    def studies(self) -> list[Study]:
        """Return all studies, the newest first."""
        found = self._get(list[Study], "/v1/studies")
        return sorted(found, key=lambda study: study.proposed_at, reverse=True)

    def study(self, digest: str) -> Study:
        """Return one study."""
        return self._get(Study, f"/v1/studies/{digest}")

    def study_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a specification."""
        return self._get(dict[str, Any], "/v1/studies/schema")

    def check_study(self, text: str) -> StudyCheck:
        """Ask what a specification, as YAML or JSON text, would cost; nothing is proposed."""
        return self._post(StudyCheck, "/v1/studies/check", content=text)

    def propose_study(self, text: str, sites: list[str]) -> Study:
        """Propose a specification to hospitals."""
        return self._post(Study, "/v1/studies", content=text, params={"sites": ",".join(sites)})

    def start_study(self, digest: str) -> None:
        """Start a study before every invited hospital has answered."""
        self._post(object, f"/v1/studies/{digest}/start")

    def stop_study(self, digest: str) -> None:
        """Stop a study for good."""
        self._post(object, f"/v1/studies/{digest}/stop")

    def rounds(self, digest: str) -> list[Round]:
        """Return a study's rounds in order."""
        return sorted(self._get(list[Round], f"/v1/studies/{digest}/rounds"), key=lambda item: item.number)

    def versions(self, digest: str) -> list[Version]:
        """Return a study's versions in order."""
        return sorted(self._get(list[Version], f"/v1/studies/{digest}/versions"), key=lambda item: item.number)

    def version(self, digest: str, number: int) -> Version:
        """Return one version with its validation."""
        return self._get(Version, f"/v1/studies/{digest}/versions/{number}")

    def decide(self, digest: str, number: int, decision: str, comment: str) -> None:
        """Record a clinician's decision about a version."""
        body = {"decision": decision, "comment": comment}
        self._post(object, f"/v1/studies/{digest}/versions/{number}/decisions", json=body)

    def sites(self) -> list[Site]:
        """Return the hospitals in alphabetical order."""
        return sorted(self._get(list[Site], "/v1/sites"), key=lambda site: site.name)

    def invite_site(self, name: str) -> Invitation:
        """Make a one-time code with which a hospital enrols."""
        return self._post(Invitation, "/v1/sites/invitations", json={"name": name})

    def people(self) -> list[PersonEntry]:
        """Return who may sign in."""
        return sorted(self._get(list[PersonEntry], "/v1/people"), key=lambda person: person.name)

    def add_person(self, name: str, role: str, password: str) -> None:
        """Let someone sign in."""
        self._post(object, "/v1/people", json={"name": name, "role": role, "password": password})

    def audit(self) -> AuditPage:
        """Return the newest `AUDIT_MOST_ENTRIES` lines of the audit log, in order."""
        entries: list[AuditEntry] = []
        head = self._get(AuditPage, "/v1/audit", params={"limit": 1}).head
        after = max(0, head.size - AUDIT_MOST_ENTRIES) if head else 0
        while True:  # ends with the log, even if it grows meanwhile
            page = self._get(AuditPage, "/v1/audit", params={"after": after, "limit": AUDIT_PAGE_ENTRIES})
            entries += page.entries
            head = page.head
            if len(page.entries) < AUDIT_PAGE_ENTRIES:
                break
            after = page.entries[-1].number
        return AuditPage(entries[-AUDIT_MOST_ENTRIES:], head)

    def verify_audit(self) -> AuditVerdict:
        """Let the hub recompute the whole chain of its audit log."""
        return self._get(AuditVerdict, "/v1/audit/verify")

    def _get(self, kind: type[T], path: str, **arguments: Any) -> T:
        return self._call(kind, "GET", path, **arguments)

    def _post(self, kind: type[T], path: str, **arguments: Any) -> T:
        return self._call(kind, "POST", path, **arguments)

    def _call(self, kind: type[T], method: str, path: str, **arguments: Any) -> T:
        try:
            response = self._http.request(method, path, headers=self._headers, **arguments)
        except httpx.HTTPError:
            raise unreachable(str(self._http.base_url)) from None
        if response.is_error:
            raise refusal_of(response)
        return parsed(kind, response)


def unreachable(hub_url: str) -> HubUnreachableError:
    """Return the error for a hub that gives no answer."""
    return HubUnreachableError(
        f"The hub at {hub_url.rstrip('/')} does not answer.",
        "Wait a moment; if it lasts, ask the hub's operator whether `wardround hub serve` is running.",
    )


def refusal_of(response: httpx.Response, who: str = "hub") -> HubRefusedError:
    """Turn an error answer of a hub or site into ours, keeping its sentence and remedy."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    message = str(body.get("message") or f"The {who} refused with status {response.status_code}.")
    kind = SignedOutError if response.status_code == httpx.codes.UNAUTHORIZED else HubRefusedError
    return kind(message, str(body.get("remedy") or ""), str(body.get("error") or ""))


def parsed(kind: type[T], response: httpx.Response, who: str = "hub") -> T:
    """Return an answer as the type that is expected.

    Raises: HubAnswerError if it is another.
    """
    try:
        return TypeAdapter(kind).validate_json(response.content or b"null")
    except ValidationError as error:
        where = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors()[:3])
        raise HubAnswerError(
            f"The {who}'s answer was not understood ({where or 'its form'}).",
            f"{who.capitalize()} and UI may be of different versions: compare `wardround --version` on both.",
        ) from None
