"""What the worker keeps of a study goes when the study has ended: cohort, images, what algorithms kept.

The gate knows which studies have ended and publishes them beside its orders, as one empty file for each
(`orders.py`); the worker sweeps. Looked for is what still lies here, so that a look costs little however many studies
have ended, and so that a job which was stopped late leaves nothing behind. A personal model (`local_state/STUDY/own`)
is what the hospital took part for: it stays until somebody deletes it.
"""

from collections.abc import Iterator
from pathlib import Path

from site_node.cohort_members import COHORT_SUFFIX, MEMBERS_SUFFIX, VALUES_SUFFIX
from site_node.durable import finished_files, remove
from site_node.orders import has_ended
from site_node.settings import SitePaths

KEPT = "own"
SEALED_SUFFIX = ".sealed"
"""Of prepared images (`training/pixel_cache.py`), each named by its study."""


def erase_ended(paths: SitePaths) -> int:
    """Delete frozen cohorts, prepared images and local states of ended studies; return of how many something was there.

    Guarantee: nothing of a study that has not ended is touched. Called again, it does nothing more.
    """
    erased = set()
    unpublished = paths.worker.glob("staging/*/frozen")  # of a worker whose machine went down while it counted
    kept = (
        *(
            (folder, suffix)
            for folder in (paths.frozen_cohorts, *unpublished)
            for suffix in (COHORT_SUFFIX, VALUES_SUFFIX)
        ),
        (paths.cohorts, MEMBERS_SUFFIX),
    )
    for folder, suffix in kept:
        for path in finished_files(folder, suffix):
            if has_ended(paths, path.stem):
                remove(path)
                erased.add(path.stem)
    for path in finished_files(paths.cache, SEALED_SUFFIX):
        study = path.name.split(".", 1)[0]
        if has_ended(paths, study):
            remove(path)
            erased.add(study)
    for folder in _folders(paths.local_state):
        states = [state for state in _folders(folder) if state.name != KEPT]
        if states and has_ended(paths, folder.name):
            for state in states:
                remove(state)
            erased.add(folder.name)
    return len(erased)


def _folders(parent: Path) -> Iterator[Path]:
    if parent.is_dir():
        yield from sorted(path for path in parent.iterdir() if path.is_dir())
