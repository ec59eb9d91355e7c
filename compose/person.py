"""A person of the demo at the hub's HTTP API: signs in again by itself, and waits out a hub that is being restarted."""

import secrets
from collections.abc import Mapping
from typing import Any

import httpx

from compose.errors import DemoError

TIMEOUT_SECONDS = 10.0
PASSWORD_BYTES = 9
ROLES = ("researcher", "clinician", "operator")


class HubSilentError(DemoError):
    """The hub does not answer now."""


class Person:
    """One signed-in person."""

    def __init__(self, hub_url: str, name: str, password: str, transport: httpx.BaseTransport | None = None) -> None:
        self._login = {"name": name, "password": password}
        self.client = httpx.Client(base_url=hub_url, timeout=TIMEOUT_SECONDS, trust_env=False, transport=transport)

    def get(self, path: str) -> Any:
        """Return the JSON of a resource. Raises: HubSilentError, DemoError."""
        return self._ask("GET", path)

    def post(self, path: str, content: bytes | None = None, json: Mapping[str, Any] | None = None) -> Any:
        """Post bytes or JSON and return the answer's JSON. Raises: HubSilentError, DemoError in the hub's words."""
        return self._ask("POST", path, content=content, json=json)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        try:
            response = self.client.request(method, path, **body)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._sign_in()
                response = self.client.request(method, path, **body)
        except httpx.TransportError as error:
            raise HubSilentError("The hub does not answer.") from error
        return _answer(response)

    def _sign_in(self) -> None:
        token = _answer(self.client.post("/v1/token/person", json=self._login))["access_token"]
        self.client.headers["Authorization"] = f"Bearer {token}"


def is_healthy(hub_url: str) -> bool:
    """Tell whether a hub answers at this address."""
    try:
        answer = httpx.get(f"{hub_url}/v1/info", timeout=2.0, trust_env=False)
        return answer.is_success and answer.json().get("service") == "wardround-hub"
    except (httpx.TransportError, ValueError):
        return False


def new_accounts() -> dict[str, str]:
    """Return one account for each role, named like the role, with a fresh password."""
    return {role: secrets.token_urlsafe(PASSWORD_BYTES) for role in ROLES}


def _answer(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise HubSilentError("The hub does not answer well.")
    try:
        words = response.json()
        sentence = f"{words['message']} {words['remedy']}".strip()
    except (ValueError, KeyError, TypeError):
        sentence = f"The hub answered with status {response.status_code}."
    raise DemoError(sentence)
