"""A job in a process of its own: fresh memory, a worker that stays responsive, and an end when the worker ends.

Children are forked from a server process that has imported torch and MONAI once and has started no thread. The child
holds the reading end of a pipe whose writing end only the worker has: when the worker dies, however it dies, the pipe
ends and so does the child. Its result goes into a staging folder that the worker publishes, or does not.
"""

import errno
import getpass
import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from site_node.logs import configure_logs
from site_node.settings import SitePaths, load_settings

TRAINING_JOB = "site_node.training.job:run_order"
MEASURING_JOB = "site_node.readiness.job:tell_machine"
"""Of a readiness report; its server has imported what most of it needs for training."""
RULES = "protocol.study_rules"
"""Imported by whoever first parses a study: a child would do it anew for each job."""
ORPHANED = 70
DISK_WAS_FULL = 72
POLL_SECONDS = 5.0


def start_server(job: str = TRAINING_JOB) -> None:
    """Start the server process, so that its imports are done when the first job comes."""
    _name_this_user()
    multiprocessing.get_context("forkserver").set_forkserver_preload([job.partition(":")[0], RULES])
    forkserver.ensure_running()


class JobProcess:
    """One running child.

    Raises: EOFError or OSError if none could be started.
    """

    def __init__(self, site: Path, staging: Path, task_id: str, job: str = TRAINING_JOB) -> None:
        start_server(job)
        context = multiprocessing.get_context("forkserver")
        reader, self._writer = context.Pipe(duplex=False)
        # Not daemonic: a job may have loader processes of its own; the pipe sees to its end.
        self._process: BaseProcess = context.Process(
            target=_run, args=(reader, str(site), str(staging), task_id, job), name=f"job {task_id}"
        )
        try:
            with without_main_module():
                self._process.start()
        except (EOFError, OSError):
            self._writer.close()
            raise
        finally:
            reader.close()

    @property
    def pid(self) -> int | None:
        """Return the child's process id."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """Wait for the end so long; return the exit code, or None if it still runs."""
        self._process.join(seconds)
        return self._process.exitcode

    def stop(self) -> None:
        """End the child now. Safe at any moment: only whole results are ever published."""
        self._writer.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


@contextmanager
def without_main_module() -> Iterator[None]:
    """Hide the worker's main module: a child would import it before anything else, and needs nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(leash: Connection, site: str, staging: str, task_id: str, job: str) -> None:
    threading.Thread(target=_end_with_worker, args=(leash,), daemon=True).start()
    module, _, function = job.partition(":")
    configure_logs()
    settings = load_settings(Path(site))
    staged = replace(settings, paths=SitePaths(settings.paths.root, Path(staging)))
    try:
        getattr(importlib.import_module(module), function)(staged, task_id)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # not even the reason could be written down
            raise SystemExit(DISK_WAS_FULL) from None
        raise


def _name_this_user() -> None:
    """Give a user without an account a name: MONAI asks for it when imported, and a container's user often has none."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def _end_with_worker(leash: Connection) -> None:
    try:
        while not leash.poll(POLL_SECONDS):
            pass
    except OSError:
        pass
    os._exit(ORPHANED)  # the pipe has ended: nobody is left to hand a result to
