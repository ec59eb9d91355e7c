"""How long a sign-in has to wait after wrong passwords. Pure.

| counted for                            | free | then doubling from 1 s to |
|----------------------------------------|------|---------------------------|
| a name from one address                | 5    | 300 s                     |
| an address, whatever names it tries    | 30   | 60 s                      |
| a name, from wherever it is tried      | 50   | 30 s                      |

Nobody is locked out for ever: a delay ends by itself, an attempt made too early is neither checked nor counted, and
who guesses at a colleague's name from elsewhere delays that colleague only once several addresses do, for half a
minute. Failures are forgotten an hour after the last one. Source: OWASP Authentication Cheat Sheet, "Account Lockout".
"""

import hashlib
import hmac
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address

FORGOTTEN_AFTER_SECONDS = 3600.0
_FIRST_DELAY_SECONDS = 1.0
_HOME_NETWORK_BITS = 64


@dataclass(frozen=True)
class Limit:
    """So many wrong passwords are free; each further one doubles the delay, up to the longest."""

    free: int
    longest_seconds: float


LIMITS = {
    "name-and-address": Limit(5, 300.0),
    "address": Limit(30, 60.0),
    "name": Limit(50, 30.0),
}


def counters(name: str, address: str, secret: bytes) -> dict[str, str]:
    """Return under which words an attempt is counted, by kind.

    Guarantee: the words tell neither name nor address to who does not know the secret.
    """
    network = _network(address)
    counted = {"name-and-address": f"{name}\0{network}", "address": network, "name": name}
    return {
        kind: hmac.digest(secret, f"wardround-sign-in:{kind}:{text}".encode(errors="replace"), hashlib.sha256).hex()
        for kind, text in counted.items()
    }


def delay_seconds(kind: str, failures: int, failed_at: float, now: float) -> float:
    """Return how long an attempt of this kind has to wait yet; 0 if it may be made."""
    limit = LIMITS[kind]
    excess = remembered(failures, failed_at, now) - limit.free
    if excess < 0:
        return 0.0
    delay = min(limit.longest_seconds, _FIRST_DELAY_SECONDS * 2.0 ** min(excess, 60))
    # A clock that was set back must not lengthen it.
    return min(delay, max(0.0, failed_at + delay - now))


def remembered(failures: int, failed_at: float, now: float) -> int:
    """Return how many failures count yet."""
    return failures if now - failed_at < FORGOTTEN_AFTER_SECONDS else 0


def _network(address: str) -> str:
    """Return an IPv6 address's network, because one household has 2^64 of them; any other address as it is."""
    try:
        whole = IPv6Address(address)
    except AddressValueError:
        return address
    if whole.ipv4_mapped is not None:
        return str(whole.ipv4_mapped)
    return str(int(whole) >> _HOME_NETWORK_BITS)
