"""Hand mail over to sites, and note that their tasks were fetched.

A site asks for what comes after a number. Many ask at once, most of them in vain, and a round's opening wakes them all:
so a process of the hub reads new mail once for all of them (`Mailroom`), and asks the database for one site's mail only
where that is older than what it holds.
"""

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hub.rounds.transitions import TaskEvent, TaskState, next_task_state
from hub.services import Services
from hub.storage import round_stores, stores

MOST_ITEMS = 100
KEPT_BYTES = 16 << 20
ROWS_AT_ONCE = 500


def mail_of(services: Services, site: str, after: int) -> list[dict[str, Any]]:
    """Return a site's mail after a number, oldest first, from the database."""
    with services.reading() as session:
        return [_item(row.number, row.envelope) for row in stores.mail_after(session, site, after, MOST_ITEMS)]


def mark_delivered(services: Services, sites: Collection[str]) -> None:
    """Note that these sites have fetched their tasks; not audited: it is no change of a study, their answer is."""
    with services.reading() as session:
        undelivered = bool(round_stores.tasks_of_sites(session, sites, TaskState.OPEN.value))
    if not undelivered:
        return
    with services.transaction() as session:
        for task in round_stores.tasks_of_sites(session, sites, TaskState.OPEN.value):
            task.state = next_task_state(task.state, TaskEvent.FETCHED).value


@dataclass(frozen=True)
class _Letter:
    number: int
    site: str
    envelope: bytes


class Mailroom:
    """The newest mail of all sites, in this process's memory, up to a bound.

    Guarantee: after `refresh`, `known` misses no mail whose transaction was committed before `refresh` was called:
        numbers grow in the order of commits, because writing transactions come one after the other.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._letters: dict[str, deque[_Letter]] = {}
        self._order: deque[_Letter] = deque()
        self._bytes = 0
        self._read_to: int | None = None
        self._kept_from = 0
        self._asked: dict[str, tuple[int, int]] = {}
        self._untold: dict[str, None] = {}

    def refresh(self) -> list[str]:
        """Read what has been posted since the last time, and return for whom, in the order of posting.

        Guarantee: a reading that breaks off forgets nobody; the next one returns whom it had found.
        """
        with self._lock, self._services.looking() as connection:
            if self._read_to is None:
                self._read_to = self._kept_from = stores.newest_mail(connection)
            found = ROWS_AT_ONCE
            while found == ROWS_AT_ONCE:
                rows = stores.mail_of_all(connection, self._read_to, ROWS_AT_ONCE)
                for number, site, envelope in rows:
                    self._keep(_Letter(number, site, envelope))
                    self._read_to, self._untold[site] = number, None
                found = len(rows)
            told, self._untold = list(self._untold), {}
        return told

    def known(self, site: str, after: int) -> list[dict[str, Any]] | None:
        """Return a site's mail after a number, oldest first; None if the database must be asked."""
        with self._lock:
            asked_from, asked_to = self._asked.get(site, (0, 0))
            nothing_to = asked_to if after >= asked_from else 0
            if self._read_to is None or max(after, nothing_to) < self._kept_from:
                return None
            letters = [letter for letter in self._letters.get(site, ()) if letter.number > after]
        return [_item(letter.number, letter.envelope) for letter in letters[:MOST_ITEMS]]

    def ask(self, site: str, after: int) -> list[dict[str, Any]]:
        """Return a site's mail after a number from the database, and remember if there was none."""
        with self._lock:
            read_to = self._read_to or 0
        items = mail_of(self._services, site, after)
        if not items:
            with self._lock:
                self._asked[site] = (after, read_to)
        return items

    def _keep(self, letter: _Letter) -> None:
        self._letters.setdefault(letter.site, deque()).append(letter)
        self._order.append(letter)
        self._bytes += len(letter.envelope)
        while self._bytes > KEPT_BYTES:
            oldest = self._order.popleft()
            self._letters[oldest.site].popleft()
            self._kept_from = oldest.number
            self._bytes -= len(oldest.envelope)


def _item(number: int, envelope: bytes) -> dict[str, Any]:
    return {"number": number, "envelope": envelope.decode()}
