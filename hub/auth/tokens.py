"""Tokens: short-lived HS256 tokens that the hub issues, and the EdDSA assertions with which a site asks for one.

Source: RFC 7519 (JWT), RFC 7523 (assertions), RFC 8037 (EdDSA). Times are checked here against the hub's own clock and
not inside PyJWT, so that a wrong clock gets a sentence that says by how much. Pure but for the clock that is handed in.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.types import Options

from hub.errors import AuthenticationError, ClockSkewError
from protocol.signing import PublicKey

HUB_NAME = "wardround-hub"
API_AUDIENCE = "wardround-api"
PERSON_TOKEN_SECONDS = 8 * 3600
SITE_TOKEN_SECONDS = 900
ASSERTION_SECONDS = 300
CLOCK_LEEWAY_SECONDS = 60
MAX_TOKEN_CHARACTERS = 4096
KEPT_TOKENS = 4096
_SIGN_IN_AGAIN = "Sign in again."
# PyJWT would judge times by this machine's clock; ours may be a simulation's.
_NO_TIMES: Options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}


@dataclass(frozen=True)
class Bearer:
    """Who a token was issued to: kind is "site" or "person"."""

    kind: str
    name: str


def issue_token(bearer: Bearer, secret: bytes, now: float) -> tuple[str, int]:
    """Return a token and the seconds it lasts. It names who, never what they may do: roles are looked up each time."""
    seconds = SITE_TOKEN_SECONDS if bearer.kind == "site" else PERSON_TOKEN_SECONDS
    claims = {
        "iss": HUB_NAME,
        "aud": API_AUDIENCE,
        "sub": f"{bearer.kind}:{bearer.name}",
        "iat": int(now),
        "exp": int(now) + seconds,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, secret, algorithm="HS256"), seconds


def read_token(token: str, secret: bytes, now: float) -> Bearer:
    """Return to whom a token was issued.

    Raises: AuthenticationError if it is not ours or has expired.
    """
    claims = _own_claims(token, secret)
    if now >= claims["exp"]:
        raise AuthenticationError("The token has expired.", _SIGN_IN_AGAIN)
    kind, _, name = str(claims["sub"]).partition(":")
    if claims["iss"] != HUB_NAME or kind not in ("site", "person") or not name:
        raise AuthenticationError("The token was not issued by this hub.", _SIGN_IN_AGAIN)
    return Bearer(kind, name)


def assertion_issuer(assertion: str) -> str:
    """Return the site that an assertion names; nothing is verified yet."""
    try:
        if len(assertion) > MAX_TOKEN_CHARACTERS:
            raise jwt.InvalidTokenError
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        raise _bad_assertion() from None
    return str(claims.get("iss", ""))


def check_assertion(assertion: str, site: str, key: PublicKey, now: float) -> None:
    """Accept a site's assertion, signed by its transport key.

    Raises: AuthenticationError if it is not the site's; ClockSkewError, saying by how much, if its clock is off.
    """
    verifying = Ed25519PublicKey.from_public_bytes(key.raw)
    claims = _decode(assertion, verifying, "EdDSA", HUB_NAME)
    issued, expires = claims["iat"], claims["exp"]
    if claims["iss"] != site or claims["sub"] != site or not claims["jti"]:
        raise _bad_assertion()
    if not all(isinstance(t, int | float) for t in (issued, expires)) or expires - issued > ASSERTION_SECONDS:
        raise AuthenticationError(
            f"An assertion is valid for at most {ASSERTION_SECONDS} seconds.", "Shorten its exp claim."
        )
    _check_clock(float(issued), float(expires), now)


def _check_clock(issued: float, expires: float, now: float) -> None:
    ahead, behind = issued - now, now - expires
    if ahead > CLOCK_LEEWAY_SECONDS:
        raise ClockSkewError(
            f"The site's clock is {ahead:.0f} seconds ahead of the hub's.", "Set both clocks by NTP and try again."
        )
    if behind > CLOCK_LEEWAY_SECONDS:
        raise ClockSkewError(
            f"The site's clock is {now - issued:.0f} seconds behind the hub's (or the request was long on its way).",
            "Set both clocks by NTP and try again.",
        )


@lru_cache(maxsize=KEPT_TOKENS)
def _own_claims(token: str, secret: bytes) -> Mapping[str, Any]:
    """Return what a token says. A caller shows the same one for minutes: its signature is checked once.

    Nothing here depends on the time or on who may call; what raises is not kept.
    """
    return MappingProxyType(_decode(token, secret, "HS256", API_AUDIENCE))


def _decode(token: str, key: Any, algorithm: str, audience: str) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise AuthenticationError("The token is too long to be one of this hub's.", _SIGN_IN_AGAIN)
    options: Options = {**_NO_TIMES, "require": ["iss", "sub", "aud", "iat", "exp", "jti"]}
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], audience=audience, options=options)
    except jwt.InvalidTokenError:
        if algorithm == "EdDSA":
            raise _bad_assertion() from None
        raise AuthenticationError("The token is not valid here.", _SIGN_IN_AGAIN) from None
    return claims


def _bad_assertion() -> AuthenticationError:
    return AuthenticationError(
        "The assertion is not signed by an enrolled site's transport key.",
        "Enrol the site (`wardround site enroll`), or check that it talks to the hub it is enrolled at.",
    )
