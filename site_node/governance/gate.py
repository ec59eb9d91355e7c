"""The gate: the only door of a hospital. A process of its own, with the signing key, without network or images.

One pass, `sweep`, reads what has come, decides, records, and only then lets folders follow. It may be killed anywhere:
what was committed is completed by the next pass, what was not is done again from the same inputs.

    receipts -> mail -> studies -> tasks -> candidates -> progress        each commits to gate.sqlite
    orders, verdicts, outbox                                               written from what is committed
"""

import errno
import fcntl
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from protocol.signing import SigningKey
from site_node.errors import GateError, SettingsError
from site_node.folder_watch import FolderWatch
from site_node.governance import answers, folders, high_water, mail, proposals
from site_node.governance.context import GateContext, fresh_nonce, nothing, read_hub_key
from site_node.governance.progress import ProgressRelay
from site_node.governance.records import is_paused, open_records
from site_node.governance.telling_readiness import advance_readiness
from site_node.settings import SiteSettings

PAUSE_SECONDS = 1.0
_log = structlog.get_logger()


class Gate:
    """Decides what comes in and what leaves, one pass at a time."""

    def __init__(
        self,
        settings: SiteSettings,
        clock: Callable[[], float] = time.time,
        checkpoint: Callable[[str], None] = nothing,
        nonce: Callable[[], str] = fresh_nonce,
    ) -> None:
        hub_key = read_hub_key(settings.paths)
        key = SigningKey.load_or_create(settings.paths.identity_key)
        database = open_records(settings.paths)
        self._context = GateContext(settings, database, key, hub_key, clock, checkpoint, nonce)
        self._progress = ProgressRelay()
        self._complaints: set[str] = set()
        folders.remove_orphans(self._context)
        high_water.take_in_charges(settings.paths, database, key.public, settings.name)

    def sweep(self) -> int:
        """Make one pass and return the number of things done; 0 means that there was nothing to do.

        Guarantee: for each (study, round, kind) at most one message, of one digest, ever enters the outbox, whatever
            is killed when; its egress entry, and the privacy events it rests on, are on the disk before.
        """
        steps = (folders.read_receipts, self._decide, folders.write_verdicts_and_orders, folders.fill_outbox)
        heard, self._complaints = self._complaints, set()
        return sum(self._attempt(step, heard) for step in steps)

    def run(self, stop: threading.Event) -> None:
        """Sweep whenever a folder changes, and at least once a second, until told to stop."""
        paths = self._context.paths
        watched = (paths.inbox, paths.candidates, paths.cohorts, paths.progress, paths.receipts)
        with self._alone(), FolderWatch(watched) as changes:
            _log.info("gate_started", site=self._context.settings.name)
            while not stop.is_set():
                while self.sweep() and not stop.is_set():
                    pass
                self._attempt(answers.account_ahead, set())
                changes.wait(PAUSE_SECONDS, stop)

    def close(self) -> None:
        """Close the database."""
        self._context.database.close()

    def _decide(self, context: GateContext) -> int:
        done = mail.read_mail(context)
        if not is_paused(context.database):
            done += advance_readiness(context) + proposals.advance_studies(context)
            done += answers.decide_tasks(context)
            done += answers.advance_masks(context)
            done += answers.admit_candidates(context)
            done += self._progress.relay(context)
        return done

    def _attempt(self, step: Callable[[GateContext], int], heard: set[str]) -> int:
        """Do one step; what stops it is said once, and tried again by the next pass. The other steps go on."""
        try:
            return step(self._context)
        except SettingsError as error:  # without a policy nothing is decided; what was decided before still leaves
            self._complain("nothing_is_decided", error.message, error.remedy, heard)
        except (OSError, sqlite3.OperationalError) as error:
            self._complain("folder_not_usable", str(error), _remedy_of(error), heard)
        return 0

    def _complain(self, event: str, why: str, remedy: str, heard: set[str]) -> None:
        if why not in heard | self._complaints:
            _log.error(event, why=why, remedy=remedy)
        self._complaints.add(why)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._context.paths.gate / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise GateError("A gate of this site is already running.", "Stop it first.") from None
            yield


def _remedy_of(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Check the folder's owner, group and rights: docs/operations.md, 'Keeping the processes apart'."
    if isinstance(error, sqlite3.Error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "Make room on the site's disk; the gate goes on by itself."
    return "Check the disk and the folders' rights; the gate goes on by itself."
