"""The worker's job for models that are larger than memory: payloads are files from their first byte to their last.

Training itself holds a model in memory, and so do the functions that encode one; here they are left out too, so that
what is tested is the way from the worker's handover over gate, agent and hub to the next version, and back.
"""

import hashlib
import os
import zlib
from pathlib import Path

import numpy as np

from protocol.digest import canonical_json, digest_of_bytes
from protocol.manifest import Manifest, TensorEntry
from site_node.candidate import Candidate, CohortFigures, candidate_folder, publish, write_cohort_figures
from site_node.cohort_members import CohortMembers, write_members
from site_node.durable import unfinished_beside, write_durably
from site_node.orders import WorkOrder, read_order
from site_node.settings import SiteSettings
from tests.benchmarks.rounds_without_training.job_name import PARAMETERS, PATIENTS

LARGE_JOB = "tests.benchmarks.rounds_without_training.large_job:hand_over"
PIECE_VALUES = 1 << 20
SCALE = np.float32(1e-3)


def hand_over(settings: SiteSettings, task_id: str) -> None:
    """Do what an order says, without patients and without holding a model."""
    order = read_order(settings.paths, task_id)
    if order is None:
        return
    manifest = Manifest((TensorEntry("weight", (int(os.environ[PARAMETERS]),)),))
    if order.kind == "cohort":
        _count(settings, order, _write_values(Path(os.devnull), manifest, "version zero"))
        return
    target = candidate_folder(settings.paths, task_id)
    unfinished = unfinished_beside(target)
    unfinished.mkdir()
    seed = "version zero" if order.kind == "initialise" else f"{settings.name} {order.round}"
    candidate = Candidate(
        task_id=task_id,
        task_digest=order.task_digest,
        kind="update",
        payload_digest=_write_values(unfinished / "payload.bin", manifest, seed),
        payload_bytes=manifest.payload_bytes,
        manifest_digest=manifest.digest,
        steps=["weights" if order.kind == "initialise" else "difference"],
    )
    write_durably(unfinished / "candidate.json", canonical_json(candidate.model_dump(mode="json")))
    publish(unfinished, target)


def _write_values(path: Path, manifest: Manifest, seed: str) -> str:
    """Write a weights file of random values piece by piece and return its digest."""
    rng, hasher, left = np.random.default_rng(zlib.crc32(seed.encode())), hashlib.sha256(), manifest.parameters
    with path.open("wb") as file:
        piece = manifest.header
        while True:
            hasher.update(piece)
            file.write(piece)
            if not left:
                file.flush()
                if file.name != os.devnull:
                    os.fsync(file.fileno())
                return "sha256:" + hasher.hexdigest()
            values = rng.standard_normal(min(left, PIECE_VALUES), np.float32) * SCALE
            piece, left = values.tobytes(), left - values.size


def _count(settings: SiteSettings, order: WorkOrder, version_zero: str) -> None:
    members = CohortMembers(study_digest=order.study_digest, training=[f"{who:032x}" for who in range(PATIENTS)])
    figures = CohortFigures(
        study_digest=order.study_digest,
        training_patients=PATIENTS,
        training_images=PATIENTS,
        held_out_patients=0,
        manifest_digest=digest_of_bytes(settings.name.encode()),
        version_zero_digest=version_zero,
        members_digest=write_members(settings.paths, members),
    )
    write_cohort_figures(settings.paths, figures)
