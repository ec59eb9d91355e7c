"""The agent: fetches mail and weights, starts jobs that the gate accepted, carries out what the gate signed.

It decides nothing and can read neither images nor ledgers: losing, repeating or holding back is the worst it can do.
`step` does it once, for the simulator and for tests; `run` does it for as long as the process lives.
"""

import errno
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from protocol.digest import parse_json
from protocol.errors import ProtocolError
from protocol.homomorphic_messages import DecryptionRequest
from protocol.messages import ModelReference, RoundTask, parse_message
from protocol.signing import open_envelope
from site_node.agent.after_power_cut import check_versions
from site_node.agent.backoff import Backoff
from site_node.agent.downloads import fetch_blob, fetch_version, forget_old_blobs, forget_unfinished
from site_node.agent.hub_client import HubClient
from site_node.agent.outbox import ENVELOPE_SUFFIX, Outbox
from site_node.agent.polling import wait_seconds
from site_node.agent.state import read_state, write_state
from site_node.durable import finished_files, write_durably
from site_node.errors import BaseUnavailableError, DiskFullError, HubRefusedError, HubUnreachableError
from site_node.folder_watch import FolderWatch
from site_node.settings import SiteSettings

PAUSE_SECONDS = 0.5
_log = structlog.get_logger()


@dataclass
class _Hold:
    """Something that could not be done, and when to try it again."""

    backoff: Backoff
    until: float = 0.0


class Agent:
    """One site's carrier. `run_job` starts a job by its task's id: Celery in a hospital, a call in the simulator."""

    def __init__(self, settings: SiteSettings, hub: HubClient, run_job: Callable[[str], object]) -> None:
        self._paths = settings.paths
        self._hub = hub
        self._run_job = run_job
        self._state = read_state(settings.paths)
        self._outbox = Outbox(settings.paths, hub, self._state.hub_key)
        self._tasks: dict[str, RoundTask] = {}
        self._requests: dict[str, DecryptionRequest] = {}
        self._scanned: set[str] = set()
        self._started: set[str] = set()
        self._holds: dict[str, _Hold] = {}

    def step(self, wait_seconds: float) -> int:
        """Carry, start and fetch once; wait for mail only if there was nothing else to do. Return the things done.

        Raises: HubUnreachableError if the hub is away. Nothing is lost by it.
        """
        done = self.carry()
        return done + self.fetch_mail(0.0 if done else wait_seconds)

    def carry(self) -> int:
        """Start the jobs that the gate accepted, deliver the outbox, and return how many things were done."""
        return self._start_jobs() + self._deliver()

    def fetch_mail(self, wait_seconds: float) -> int:
        """Put new mail into the inbox, then move the cursor; a crash in between fetches it again, the same."""
        items = self._hub.mailbox(self._state.cursor, wait_seconds)
        for item in sorted(items, key=lambda item: item.number):
            write_durably(self._paths.inbox / f"{item.number:016d}{ENVELOPE_SUFFIX}", item.envelope)
            self._state = replace(self._state, cursor=max(self._state.cursor, item.number))
        if items:
            write_state(self._paths, self._state)
        return len(items)

    def run(self, stop: threading.Event) -> None:
        """Do it until told to stop: mail in a thread of its own, because it waits at the hub."""
        self._guarded(partial(forget_unfinished, self._paths, time.time()), Backoff(), stop)
        backoff = Backoff()
        while not stop.is_set() and not self._guarded(partial(check_versions, self._paths), backoff, stop):
            pass  # a damaged version that lies here would be taken for a whole one
        mail = threading.Thread(target=self._poll, args=(stop,), name="mail", daemon=True)
        mail.start()
        backoff = Backoff()
        with FolderWatch((self._paths.outbox, self._paths.verdicts)) as changes:
            while not stop.is_set():
                self._guarded(self.carry, backoff, stop)
                changes.wait(PAUSE_SECONDS, stop)
        mail.join(timeout=1.0)

    def _poll(self, stop: threading.Event) -> None:
        backoff, chance = Backoff(), random.Random()  # noqa: S311 - when an agent calls is no secret
        while not stop.is_set():
            self._guarded(lambda: self.fetch_mail(wait_seconds(chance)), backoff, stop)

    def _guarded(self, action: Callable[[], int], backoff: Backoff, stop: threading.Event) -> bool:
        """Do something that hub or disk may not let happen; tell whether it was done, and wait a while if not."""
        try:
            action()
        except HubUnreachableError as error:
            if backoff.failures == 0:
                _log.warning("hub_away", why=error.message, remedy=error.remedy, next="the agent tries again by itself")
            stop.wait(backoff.failed())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "Make room on the site's disk" if full else "Check the disk and the folders' rights"
            _log.error("folder_not_usable", why=error.strerror, remedy=f"{remedy}; the agent goes on by itself.")
            stop.wait(backoff.failed())
        else:
            if backoff.succeeded():
                _log.info("hub_back")
            return True
        return False

    def _start_jobs(self) -> int:
        accepted = self._accepted()
        self._started &= accepted
        done = 0
        for task_id in sorted(accepted - self._started):
            if not self._unless_held(task_id, partial(self._fetch_base, task_id, accepted)):
                continue
            self._started.add(task_id)
            if task_id not in self._requests:  # the gate itself opens a sum, once its ciphertexts are here
                self._run_job(task_id)
            done += 1
        return done

    def _fetch_base(self, task_id: str, accepted: set[str]) -> bool:
        task = self._task(task_id)
        for reference in _weights_of(task):
            difference = task.difference if task is not None and reference == task.base else None
            fetch_version(self._hub, self._paths, reference, difference)
        request = self._requests.get(task_id)
        if request is not None:
            for blob in request.blobs:
                fetch_blob(self._hub, self._paths, blob.blob, blob.bytes)
        forget_old_blobs(self._paths, self._needed(accepted))
        return True

    def _needed(self, accepted: set[str]) -> set[str]:
        tasks = [self._task(task_id) for task_id in accepted]
        requests = [self._requests[task_id] for task_id in accepted if task_id in self._requests]
        versions = {reference.weights_digest for task in tasks for reference in _weights_of(task)}
        return versions | {blob.blob for request in requests for blob in request.blobs}

    def _deliver(self) -> int:
        waiting = self._outbox.waiting()
        return sum(self._unless_held(path.name, partial(self._outbox.deliver, path)) for path in waiting)

    def _unless_held(self, name: str, action: Callable[[], bool]) -> bool:
        """Do something that may be refused, or not fit here; it holds back this one thing for a while, nothing else."""
        hold = self._holds.get(name)
        if hold is not None and time.monotonic() < hold.until:
            return False
        try:
            done = action()
        except (HubRefusedError, BaseUnavailableError, DiskFullError) as error:
            _log.warning("held_back", what=name, why=error.message, remedy=error.remedy)
            hold = hold or self._holds.setdefault(name, _Hold(Backoff()))
            hold.until = time.monotonic() + hold.backoff.failed()
            return False
        self._holds.pop(name, None)
        return done

    def _accepted(self) -> set[str]:
        accepted = set()
        for path in finished_files(self._paths.verdicts, ".json"):
            try:
                if parse_json(path.read_bytes())["verdict"] == "accept":
                    accepted.add(path.stem)
            except (OSError, ProtocolError, KeyError, TypeError):
                continue  # taken away or being replaced: the next pass sees what it has become
        return accepted

    def _task(self, task_id: str) -> RoundTask | None:
        if task_id not in self._tasks:
            for path in finished_files(self._paths.inbox, ENVELOPE_SUFFIX):
                if path.name not in self._scanned:
                    self._scanned.add(path.name)
                    self._remember(path)
        return self._tasks.get(task_id)

    def _remember(self, path: Path) -> None:
        try:
            message = parse_message(open_envelope(path.read_bytes(), self._state.hub_key))
        except ProtocolError:
            return  # the gate refuses it and says why
        if isinstance(message, RoundTask):
            self._tasks.setdefault(message.task_id, message)
        elif isinstance(message, DecryptionRequest):
            self._requests.setdefault(message.task_id, message)


def _weights_of(task: RoundTask | None) -> list[ModelReference]:
    """Return the weights that a task names: the version to start from, and SCAFFOLD's control variate."""
    return [] if task is None else [reference for reference in (task.base, task.control) if reference is not None]
