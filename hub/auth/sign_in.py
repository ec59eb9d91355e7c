"""People signing in: a delay that grows with wrong passwords, kept in the database, so that all API processes share it.

An attempt is counted as wrong before its password is looked at, and taken back if it was right: attempts made side by
side, through however many processes, cannot be more than the delay allows.
"""

import math
import re

import structlog

from hub.auth.passwords import password_matches
from hub.auth.throttling import FORGOTTEN_AFTER_SECONDS, counters, delay_seconds, remembered
from hub.errors import AuthenticationError, SignInDelayedError
from hub.services import Services
from hub.settings import token_secret
from hub.storage import sign_in_stores, stores
from hub.storage.database import Session
from hub.storage.tables import PersonRow
from protocol.study_parts import NAME_PATTERN

_log = structlog.get_logger()


def check_password(services: Services, name: str, password: str, address: str) -> PersonRow:
    """Return the person whose name and password these are; `address` is where the attempt comes from.

    Raises: AuthenticationError, with the same sentence for a wrong name and a wrong password; SignInDelayedError if
        too many came before, whether the password is right or not.
    """
    counted = counters(name, address, token_secret(services.settings))
    _count(services, counted)
    with services.reading() as session:
        person = stores.find_person(session, name) if re.fullmatch(NAME_PATTERN, name) else None
    if not password_matches(person.password_hash if person else None, password) or person is None or person.disabled:
        _log.warning("sign_in_refused")
        raise AuthenticationError(
            "Name and password do not belong together.", "Check both, or ask the hub's operator for a new password."
        )
    _take_back(services, counted)
    return person


def _count(services: Services, counted: dict[str, str]) -> None:
    now = services.clock()
    with services.reading() as session:
        _check_delay(session, counted, now)  # a flood of early attempts must not queue for the one writer's place
    with services.transaction() as session:
        failures = _check_delay(session, counted, now)
        sign_in_stores.forget_old_sign_in_failures(session, now - FORGOTTEN_AFTER_SECONDS)
        for kind, counter in counted.items():
            sign_in_stores.count_sign_in_failure(session, counter, failures[kind] + 1, now)


def _check_delay(session: Session, counted: dict[str, str], now: float) -> dict[str, int]:
    """Return how many failures count yet, by kind, if the attempt may be made."""
    rows = sign_in_stores.sign_in_failures(session, counted.values())
    failures, delay = dict.fromkeys(counted, 0), 0.0
    for kind, counter in counted.items():
        row = rows.get(counter)
        if row is not None:
            failures[kind] = remembered(row.failures, row.failed_at, now)
            delay = max(delay, delay_seconds(kind, row.failures, row.failed_at, now))
    if delay > 0:
        _log.warning("sign_in_delayed", seconds=math.ceil(delay))
        raise SignInDelayedError(math.ceil(delay))
    return failures


def _take_back(services: Services, counted: dict[str, str]) -> None:
    """Forget this person's failures from this address; of the others only the attempt that was right."""
    with services.transaction() as session:
        rows = sign_in_stores.sign_in_failures(session, counted.values())
        done = [counted["name-and-address"]]
        for kind in ("address", "name"):
            row = rows.get(counted[kind])
            if row is not None:
                row.failures -= 1
                done += [row.counter] if row.failures <= 0 else []
        sign_in_stores.forget_sign_in_failures(session, done)
