"""Fetch a version from a hub, as a person who may read its models."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from protocol.digest import hex_of
from site_node.bundles.given_weights import MOST_WEIGHTS_BYTES
from site_node.bundles.released import ReleasedVersion, released_version
from site_node.errors import BundleError

TIMEOUT_SECONDS = 60.0


@contextmanager
def signed_in(
    hub: str, name: str, password: str, transport: httpx.BaseTransport | None = None
) -> Iterator[httpx.Client]:
    """Open a hub's API for a person; `transport` stands in for the network.

    Raises: BundleError if the hub does not answer, or does not know the person.
    """
    with httpx.Client(base_url=hub, timeout=TIMEOUT_SECONDS, transport=transport) as client:
        token = _asked(client, "POST", "/v1/token/person", json={"name": name, "password": password}).json()
        client.headers["Authorization"] = f"Bearer {token['access_token']}"
        yield client


def fetch_version(client: httpx.Client, study: str, number: int, hub_key: str | None = None) -> ReleasedVersion:
    """Fetch a version with its study and weights, and check that they belong together.

    Raises: BundleError if the hub does not answer, has no such version, or what it sent does not fit.
    """
    found = _asked(client, "GET", f"/v1/studies/{study}").json()
    view = _asked(client, "GET", f"/v1/studies/{study}/versions/{number}").json()
    if int(view["weights_bytes"]) > MOST_WEIGHTS_BYTES:
        raise BundleError("The version is larger than a bundle may be.", f"At most {MOST_WEIGHTS_BYTES} bytes.")
    weights = _asked(client, "GET", f"/v1/blobs/{hex_of(view['digest'])}").content
    return released_version(found["study"], view, weights, hub_key)


def _asked(client: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:
    try:
        response = client.request(method, path, **arguments)
    except httpx.HTTPError:
        raise BundleError(f"The hub at {client.base_url} does not answer.", "Is the address right?") from None
    if response.is_error:
        raise BundleError(f"The hub refused ({response.status_code}): {_words(response)}", "Ask the hub's operator.")
    return response


def _words(response: httpx.Response) -> str:
    try:
        return str(response.json().get("message", ""))[:300]
    except (ValueError, AttributeError):
        return ""
