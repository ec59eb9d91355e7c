"""Which GPU a worker's jobs use: one worker for each GPU, kept apart before anything touches CUDA.

CUDA shows a process only the GPUs that CUDA_VISIBLE_DEVICES names, in that order and counted from 0, and a job uses
the first that it sees (`training/trainer.py`). So a worker is kept to one GPU by that variable, which its unit sets or
`wardround site worker SITE --gpu N` does, in the environment that its jobs inherit.
Source: NVIDIA, CUDA C++ Programming Guide, "CUDA Environment Variables".
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from multiprocessing.connection import Connection

from site_node.errors import SettingsError
from site_node.tasks.child import start_server, without_main_module

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
AS_NVIDIA_SMI_COUNTS = "PCI_BUS_ID"
"""CUDA's own order begins with the fastest GPU."""
_REMEDY = "nvidia-smi lists what there is. Leave --gpu out to use what the environment shows, or the processor."


def keep_to_gpu(number: int) -> None:
    """Let this process's jobs see one GPU only, before the first of them starts.

    Raises: SettingsError if the jobs would see none: they would train on the processor, slowly and unseen.
    """
    narrow(number, os.environ)
    check_gpu(number, gpus_seen_by_jobs)


def keep_gpus_free(keep: int, number: int | None) -> None:
    """Keep this process's jobs off the last GPUs of the machine, before the first of them starts; see `leave_free`."""
    leave_free(keep, os.environ, _gpus_shown(), number)


def leave_free(keep: int, environment: MutableMapping[str, str], shown: int, number: int | None = None) -> None:
    """Keep a worker's jobs off the last GPUs that its environment shows, for other programs of the hospital.

    `number` is the one GPU that the worker was given, if it was. Without any GPU there is nothing to keep.
    Raises: SettingsError if none would be left for jobs, or the one that was given is among those kept free.
    """
    if not keep or not shown:
        return
    if keep >= shown:
        remedy = "Lower keep_gpus_free in site.yaml, or let this worker train on the processor: CUDA_VISIBLE_DEVICES=''"
        raise SettingsError(f"keep_gpus_free is {keep}, and this machine shows {shown} GPU(s): none is left.", remedy)
    if number is None:
        environment.setdefault(ORDER, AS_NVIDIA_SMI_COUNTS)
        visible = environment.get(VISIBLE)
        environment[VISIBLE] = ",".join(gpu_named(each, visible) for each in range(shown - keep))
    elif number >= shown - keep:
        remedy = f"Give this worker one of the first {shown - keep}: they count from 0."
        raise SettingsError(f"GPU {number} is kept free (keep_gpus_free in site.yaml).", remedy)


def _gpus_shown() -> int:
    """Return how many GPUs torch finds in this environment; asked in a process that ends before jobs are made.

    The server that jobs are forked from keeps the environment in which it began, so it must not begin before.
    """
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdecimal() else 0


def narrow(number: int, environment: MutableMapping[str, str]) -> None:
    """Change an environment so that it shows only one GPU of those it shows."""
    environment.setdefault(ORDER, AS_NVIDIA_SMI_COUNTS)
    environment[VISIBLE] = gpu_named(number, environment.get(VISIBLE))


def gpu_named(number: int, visible: str | None) -> str:
    """Return the name of one of the GPUs that a value of CUDA_VISIBLE_DEVICES shows, counted from 0; None: shows all.

    Raises: SettingsError if it shows fewer.

    >>> gpu_named(1, None)
    '1'
    >>> gpu_named(1, "2,3")
    '3'
    >>> gpu_named(0, "GPU-8f3a6b9c")
    'GPU-8f3a6b9c'
    """
    if visible is None:
        return str(number)
    shown = []
    for name in (part.strip() for part in visible.split(",")):
        if not name or name.startswith("-"):
            break  # CUDA reads no further
        shown.append(name)
    if number >= len(shown):
        raise SettingsError(f"{VISIBLE} shows {len(shown)} GPUs, so there is no GPU {number}, counted from 0.", _REMEDY)
    return shown[number]


def check_gpu(number: int, seen: Callable[[], int]) -> None:
    """Refuse a GPU that the jobs would not see.

    Raises: SettingsError.
    """
    if seen() < 1:
        raise SettingsError(f"This machine shows this user no GPU {number}, counted from 0.", _REMEDY)


def gpus_seen_by_jobs() -> int:
    """Return how many GPUs torch finds in a job's process; 0 also if none could be started."""
    start_server()
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    try:
        with without_main_module():
            process = context.Process(target=_count, args=(theirs,), name="gpus")
            process.start()
        theirs.close()
        found: int = ours.recv()
        process.join()
    except (EOFError, OSError):
        return 0
    finally:
        ours.close()
    return found


def _count(answer: Connection) -> None:
    import torch  # the server has imported it; the worker itself never does

    answer.send(torch.cuda.device_count())
