"""One run of fetching from the PACS: plan what is wanted, then fetch imaging study by imaging study.

An imaging study that cannot be fetched is tried again later, with longer and longer rests, while others go on; at last
it is one line of the receipt. A PACS that is away is waited for, and costs no study an attempt. What was fetched is on
the disk and in the journal before the next is asked for, so a run may be killed at any moment and the next one goes on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from site_node.dicom.quiet import quiet
from site_node.errors import DiskFullError, PacsAwayError, PacsError, PacsRefusedError, SiteError
from site_node.ingest.imaging_study import ImagingStudyFetch
from site_node.ingest.pace import SECONDS_A_MINUTE, Pace
from site_node.ingest.pacs import Level, Pacs
from site_node.ingest.planning import Planning
from site_node.ingest.retrieval_journal import Entry, RetrievalJournal
from site_node.ingest.shelf import Shelf
from site_node.ingest.wanted import Wanted
from site_node.pacs_settings import PacsSettings

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 2.0, 300.0
Outcome = Literal[
    "complete", "some-failed", "stopped", "outside-hours", "pacs-away", "refused", "disk-full", "query-not-answered"
]


class StoppedError(Exception):
    """Somebody asked the run to stop."""


class Clock(Protocol):
    """Time as a run sees it; tests give another."""

    def monotonic(self) -> float:
        """Return seconds from some start."""
        ...

    def now(self) -> datetime:
        """Return the hospital's local time."""
        ...

    def rest(self, seconds: float) -> None:
        """Sleep; raise StoppedError if the run is to stop."""
        ...


@dataclass(frozen=True)
class Progress:
    """Who is told how far a run is: after each question, each instance, and each imaging study that is settled."""

    asked: Callable[[], None] = lambda: None
    instance: Callable[[], None] = lambda: None
    settled: Callable[[int, int], None] = lambda done, of: None


@dataclass(frozen=True)
class Ended:
    """How a run ended, and why if it ended early."""

    run: int
    outcome: Outcome
    error: SiteError | None = None


@dataclass(frozen=True)
class Retrieval:
    """What a run works with. `wait_for_hours` says whether it waits outside the hours of the day, or ends."""

    settings: PacsSettings
    pacs: Pacs
    journal: RetrievalJournal
    shelf: Shelf
    clock: Clock
    progress: Progress = Progress()
    wait_for_hours: bool = True
    again: bool = False

    def run(self, wanted: Wanted) -> Ended:
        """Fetch what is wanted.

        Guarantee: whatever one imaging study does, the others are fetched; nothing that is here is fetched again.
        """
        run = self.journal.begin()
        with quiet():
            outcome, error = self._ended(run, wanted)
        self.journal.end(run, outcome)
        return Ended(run, outcome, error)

    def _ended(self, run: int, wanted: Wanted) -> tuple[Outcome, SiteError | None]:
        planned = False
        try:
            Planning(run, wanted, self._find, self.journal, self.again, self.progress.asked).plan()
            planned = True
            finished = self._fetch_all(run, wanted)
        except StoppedError:
            return "stopped", None
        except DiskFullError as error:
            return "disk-full", error
        except PacsAwayError as error:
            return "pacs-away", error
        except PacsRefusedError as error:
            return "refused", error
        except PacsError as error:
            if planned:
                raise
            return "query-not-answered", error
        if not finished:
            return "outside-hours", None
        return ("some-failed" if self.journal.entries(run, "failed") else "complete"), None

    def _fetch_all(self, run: int, wanted: Wanted) -> bool:
        """Fetch all planned imaging studies; return False if the hours of the day ended it."""
        pace = Pace(self.settings, self.clock.rest, monotonic=self.clock.monotonic, now=self.clock.now)
        fetch = ImagingStudyFetch(self.pacs, self.journal, self.shelf, pace, wanted, self.progress.instance, run)
        waiting = [(float("-inf"), entry.number, 0, entry) for entry in self.journal.entries(run, "planned")]
        total = len(waiting)  # a heap: what may be tried first is taken first
        while waiting:
            self.progress.settled(total - len(waiting), total)
            ready_at, number, failures, entry = heappop(waiting)
            self.clock.rest(max(0.0, ready_at - self.clock.monotonic()))
            if pace.closed_seconds() and not self.wait_for_hours:
                return False
            pace.study()
            retry_after = self._attempt(fetch, entry, failures)
            if retry_after is not None:
                counted = failures + (retry_after > 0)
                heappush(waiting, (self.clock.monotonic() + retry_after, number, counted, entry))
        self.progress.settled(total, total)
        return True

    def _attempt(self, fetch: ImagingStudyFetch, entry: Entry, failures: int) -> float | None:
        """Try one imaging study; return after how many seconds to try it again, 0 if it was not its fault, or None."""
        try:
            remark = fetch.attempt(entry)
        except PacsRefusedError:
            raise
        except PacsError as error:
            if isinstance(error, PacsAwayError) and not self._is_there():
                return 0.0
            self.journal.tried(entry.number)
            if error.lasting or failures + 1 >= self.settings.attempts:
                self.journal.settle(entry.number, "failed", error.message)
                return None
            self.journal.settle(entry.number, "planned", error.message)
            return float(min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2**failures))
        self.journal.tried(entry.number)
        self.journal.settle(entry.number, "fetched", remark)
        return None

    def _find(self, level: Level, keys: Mapping[str, str]) -> list[Dataset]:
        """Ask, and ask again if the PACS was away or broke off."""
        failures = 0
        while True:
            try:
                return self.pacs.find(level, keys)
            except PacsRefusedError:
                raise
            except PacsError as error:
                if isinstance(error, PacsAwayError) and not self._is_there():
                    continue
                failures += 1
                if error.lasting or failures >= self.settings.attempts:
                    raise
                self.clock.rest(FIRST_REST_SECONDS * 2 ** (failures - 1))

    def _is_there(self) -> bool:
        """Wait for a PACS that did not answer: True if it answers at once, False if it had to be waited for.

        Raises: PacsAwayError if it stays away for longer than `patience_minutes`.
        """
        began, rests = self.clock.monotonic(), 0
        while True:
            try:
                self.pacs.echo()
            except PacsRefusedError:
                raise
            except PacsError as error:
                if self.clock.monotonic() - began >= self.settings.patience_minutes * SECONDS_A_MINUTE:
                    raise PacsAwayError(error.message, error.remedy) from error
                self.clock.rest(min(30.0, FIRST_REST_SECONDS * 2 ** min(rests, 8)))
                rests += 1
            else:
                return rests == 0
