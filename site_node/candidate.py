"""Candidates: what the worker hands over to the gate in answer to an order. Nothing in it leaves unchecked.

    handover/candidates/<task_id>/candidate.json      this description
    handover/candidates/<task_id>/payload.bin         the update, for kind "update"
    handover/cohorts/<study hex>.json                 the public figures of a cohort (its members: cohort_members.py)

A candidate appears whole: its folder is written under a hidden name, synced, and renamed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocol.concordance import PairCounts
from protocol.digest import Digest, canonical_json, hex_of, parse_json
from protocol.errors import DigestError
from protocol.message import Count
from protocol.messages import Reason
from protocol.metrics import ScoreHistograms
from protocol.site_rates import QualityFigures
from protocol.study_parts import HeldOutSplit
from protocol.value_histograms import ValueHistogram
from site_node.durable import (
    GROUP_WRITES,
    read_up_to,
    remove,
    sync_folder,
    unfinished_beside,
    write_digested,
    write_durably,
)
from site_node.errors import GateError
from site_node.settings import SitePaths

MAX_CANDIDATE_BYTES = 4 << 20
PAYLOAD = "payload.bin"
Step = Literal[
    "difference", "weights", "gradient", "top-k", "random-k", "quantise", "half", "zstandard", "quantised", "skellam"
]


class NoisedUse(BaseModel):
    """How many patients a training could draw, noised by the worker: the gate makes the receipt's number of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patients: int
    noise_epsilon: float


class Candidate(BaseModel):
    """An update, an evaluation or a failure; the fields of the other kinds are empty.

    `unsynced_in` names the run of the machine (`boot_id`) in which the payload was written without being synced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str = Field(max_length=200)
    task_digest: Digest
    kind: Literal["update", "evaluation", "failure"]
    payload_digest: Digest | None = None
    payload_bytes: Count | None = None
    manifest_digest: Digest | None = None
    steps: list[Step] = []
    histograms: dict[HeldOutSplit, ScoreHistograms] | None = None
    classes: dict[HeldOutSplit, list[ScoreHistograms]] | None = None
    pairs: dict[HeldOutSplit, PairCounts] | None = None
    values: dict[HeldOutSplit, list[ValueHistogram]] | None = None
    uncut: float | None = Field(default=None, allow_inf_nan=False)
    used: NoisedUse | None = None
    reason: Reason | None = None
    unsynced_in: str | None = None


class CohortFigures(BaseModel):
    """What the site's administrator approves to be known of a cohort, and why there is none.

    The patients are those who match the study, with those whom their spent budget keeps out: how many these are is told
    by no figure. 0 if nobody else is left.
    `training_patients` has noise of `count_epsilon`, and counts those who take part alone, where the study says so.
    `quality` is noised by the worker where the study says so, and leaves with the approval.
    `version_zero_digest` stays here: the gate compares it with the version 0 that the hub names. `members_digest` is of
    the list of pseudonyms beside it, which the worker writes first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_digest: Digest
    training_patients: Count = 0
    count_epsilon: float | None = None
    training_images: Count = 0
    held_out_patients: Count = 0
    manifest_digest: Digest | None = None
    version_zero_digest: Digest | None = None
    members_digest: Digest | None = None
    quality: QualityFigures | None = None
    recount: int = 0
    problem: Reason | None = None


def candidate_folder(paths: SitePaths, task_id: str) -> Path:
    """Return where the candidate of a task lies once it is whole."""
    return paths.candidates / task_id


def payload_path(paths: SitePaths, task_id: str) -> Path:
    """Return where the payload of a task's candidate lies."""
    return candidate_folder(paths, task_id) / PAYLOAD


def write_candidate(paths: SitePaths, candidate: Candidate, payload: bytes | memoryview | None = None) -> None:
    """Hand a candidate over, whole. If one is there already it stays: the first is the answer."""

    def described(folder: Path) -> Candidate:
        if payload is not None:
            write_durably(folder / PAYLOAD, payload)
        return candidate

    _hand_over(paths, candidate.task_id, described)


def write_update_candidate(
    paths: SitePaths,
    task_id: str,
    payload: bytes | memoryview,
    candidate_of: Callable[[str], Candidate],
    *,
    synced: bool = True,
) -> None:
    """Hand an update over; `candidate_of` describes it once its digest is known, which is taken while it is written."""

    def described(folder: Path) -> Candidate:
        return candidate_of(write_digested(folder / PAYLOAD, payload, synced=synced))

    _hand_over(paths, task_id, described)


def _hand_over(paths: SitePaths, task_id: str, described: Callable[[Path], Candidate]) -> None:
    target = candidate_folder(paths, task_id)
    if target.exists():
        return
    paths.candidates.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_beside(target)
    unfinished.mkdir()
    unfinished.chmod(GROUP_WRITES)  # the gate takes it away; mkdir's own mode would be cut by the umask
    document = described(unfinished).model_dump(mode="json")
    write_durably(unfinished / "candidate.json", canonical_json(document))
    publish(unfinished, target)


def publish(unfinished: Path, target: Path) -> None:
    """Give a finished folder its final name; if the name is taken, the first one stays."""
    try:
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        remove(unfinished)
    sync_folder(target.parent)


def read_candidate(paths: SitePaths, task_id: str) -> Candidate | None:
    """Return the candidate of a task, or None if there is none yet.

    Raises: GateError if it is something else, or larger than any candidate may be.
    """
    data = _description(candidate_folder(paths, task_id) / "candidate.json")
    try:
        return None if data is None else Candidate.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        raise GateError("A candidate does not parse.", "Are worker and gate of the same version?") from None


def cohort_path(paths: SitePaths, study_digest: str) -> Path:
    """Return where the figures of a study's cohort lie."""
    return paths.cohorts / f"{hex_of(study_digest)}.json"


def write_cohort_figures(paths: SitePaths, figures: CohortFigures) -> None:
    """Hand over the public figures of a cohort."""
    paths.cohorts.mkdir(parents=True, exist_ok=True)
    write_durably(cohort_path(paths, figures.study_digest), canonical_json(figures.model_dump(mode="json")))


def read_cohort_figures(paths: SitePaths, study_digest: str) -> CohortFigures | None:
    """Return the figures of a study's cohort, or None if it was not counted yet.

    Raises: GateError if the file is something else, or of another study.
    """
    data = _description(cohort_path(paths, study_digest))
    if data is None:
        return None
    try:
        figures = CohortFigures.model_validate(parse_json(data))
    except (DigestError, ValidationError):
        raise GateError("The figures of a cohort do not parse.", "Are worker and gate of the same version?") from None
    if figures.study_digest != study_digest:
        raise GateError("The figures of a cohort name another study.", "Restart the worker.")
    return figures


def _description(path: Path) -> bytes | None:
    data = read_up_to(path, MAX_CANDIDATE_BYTES)
    if data is not None and len(data) > MAX_CANDIDATE_BYTES:
        raise GateError(f"A candidate's description holds at most {MAX_CANDIDATE_BYTES} bytes.", "Restart the worker.")
    return data
