"""Why one of several training processes ended: its exit code tells the first process, which fails with that reason.

    82, 83, 84  its GPU was lost, memory or disk was short: as if it had happened in the first process
    -9          killed, which the system does for memory
    85          another process was gone; that one's code tells more

Of any other nobody knows: TrainingProcessLostError, which the worker counts as a crash and meets by another attempt.
"""

import errno
import os
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

from protocol.messages import Reason
from site_node.errors import DiskFullError, SiteError, TrainingProcessLostError
from site_node.training.device import is_lost_device, is_out_of_memory

FAILED, WITHOUT_DEVICE, WITHOUT_MEMORY, WITHOUT_DISK, OTHERS_GONE = 1, 82, 83, 84, 85
KILLED = -9
LONGEST_END_SECONDS = 60.0
"""So long a process may take to end that has closed its pipe: one whose GPU is lost hangs in the driver for a while."""
POLL_SECONDS = 0.02


def code_of(error: Exception) -> int:
    """Return the exit code that tells the first process why another one ends."""
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        return OTHERS_GONE
    if is_lost_device(error):
        return WITHOUT_DEVICE
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return WITHOUT_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WITHOUT_DISK
    if isinstance(error, SiteError) and error.reason is Reason.DISK_FULL:
        return WITHOUT_DISK
    return FAILED


def loss_of(helpers: Sequence[BaseProcess]) -> Exception:
    """Return what the first process raises when another one is gone."""
    codes = _codes(helpers)
    if KILLED in codes or WITHOUT_MEMORY in codes:
        return MemoryError()
    if WITHOUT_DEVICE in codes:
        return RuntimeError("CUDA error: lost in another of the processes")  # as if it were lost in this one
    if WITHOUT_DISK in codes:
        return DiskFullError(os.strerror(errno.ENOSPC), "Make room on the worker's disk.")
    return TrainingProcessLostError(
        "One of the processes that train together was lost.", "Look for its error above; or set processes: 1."
    )


def _codes(helpers: Sequence[BaseProcess]) -> set[int | None]:
    """Wait until one has ended that tells why, or all have, and return the exit codes of those that have."""
    until = time.monotonic() + LONGEST_END_SECONDS
    while True:
        codes = {helper.exitcode for helper in helpers}
        if codes - {None, 0, OTHERS_GONE} or None not in codes or time.monotonic() > until:
            return codes
        time.sleep(POLL_SECONDS)
