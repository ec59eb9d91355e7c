"""Disk and memory that a study needs here, beside what this machine has."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort
from site_node.doctor.finding import Finding, fine, problem, warning
from site_node.doctor.memory import available_here
from site_node.readiness.pace import Pace
from site_node.settings import SiteSettings

MIB = 1 << 20
PIXEL_BYTES, MASK_BYTES = 2, 1
VERSIONS_KEPT = 4
"""Of a model on this disk at a time: the version to start from, the next, a candidate, an update that waits."""
MAKE_ROOM = "Make room, or move the folder to a larger disk."
MORE_MEMORY = "End other programs, or ask the researcher for smaller images or batches."


def needed_bytes(study: StudySpec, cohort: Cohort, values: int) -> int:
    """Return what the prepared images and the versions of a network of so many values take on the disk. Pure."""
    return stored_bytes(study, sum(len(patient.images) for patient in cohort.patients), values)


def stored_bytes(study: StudySpec, images: int, values: int) -> int:
    """Return what so many prepared images take on the disk, with the versions of a network of so many values. Pure."""
    size = 0 if study.kind == "tabular" else math.prod(study.preprocessing.size)
    each = PIXEL_BYTES + (MASK_BYTES if study.kind == "segmentation" else 0)
    return images * size * each + VERSIONS_KEPT * values * 4


def find_room(
    settings: SiteSettings, study: StudySpec, cohort: Cohort, values: int, pace: Pace | None
) -> tuple[list[Finding], dict[str, Any]]:
    """Compare what is needed with what is there."""
    needed = needed_bytes(study, cohort, values)
    free = _free_bytes(settings.paths.worker)
    available = available_here()
    peak = None if pace is None else pace.peak_bytes * settings.processes
    findings = [*_disk(needed, free), *_memory(peak, available)]
    return findings, {"disk_needed": needed, "disk_free": free, "memory_needed": peak, "memory_left": available}


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _disk(needed: int, free: int | None) -> Iterator[Finding]:
    says = f"The study takes about {needed / MIB:.0f} MiB of the worker's disk"
    if free is None:
        yield warning("disk", f"{says}, which cannot be looked at.", "Is it mounted?")
    elif needed > free:
        yield problem("disk", f"{says}, and {free / MIB:.0f} MiB are free.", MAKE_ROOM)
    else:
        yield fine("disk", f"{says}; {free / MIB:.0f} MiB are free.")


def _memory(peak: int | None, available: int | None) -> Iterator[Finding]:
    if peak is None:
        return
    says = f"Training took {peak / MIB:.0f} MiB of memory when it was measured"
    if available is None:
        yield warning("memory", f"{says}; this machine does not tell what is left.", "Look with `free -h`.")
    elif peak > available:
        yield problem("memory", f"{says}, and {available / MIB:.0f} MiB are left.", MORE_MEMORY)
    else:
        yield fine("memory", f"{says}; {available / MIB:.0f} MiB are left.")
