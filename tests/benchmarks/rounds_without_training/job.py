"""The worker's job of the benchmark: everything that a training job does around the training.

It reads the base version and checks its digest, takes the difference of "trained" and base weights, checks, encodes,
digests and hands it over, by the functions that `site_node/training/job.py` uses. In place of training, random values
made once when the job's server process starts are added to the base, shifted by another offset in each round.
"""

import os
import time
import zlib

import numpy as np

from protocol.digest import digest_of_bytes
from protocol.manifest import manifest_of
from protocol.study import parse_study
from protocol.tensors import Weights, empty_weights, encode_weights
from site_node.candidate import CohortFigures, write_cohort_figures
from site_node.cohort_members import CohortMembers, write_members
from site_node.orders import WorkOrder, read_order
from site_node.settings import SiteSettings
from site_node.update.handover import hand_over_payload
from site_node.update.steps import difference, update_payload, weights_payload
from site_node.update.versions import read_version
from tests.benchmarks.rounds_without_training.job_name import PARAMETERS, PATIENTS

SCALE = 1e-3
LAYERS = 8

STOOD_IN: list[tuple[int, float, float]] = []
"""Rounds, and the seconds, on the clock and the processor's, of what was done in them in place of training."""
SHIFT = 1000
MOST_SHIFTS = 64

_parameters = int(os.environ.get(PARAMETERS, "0"))
_noise = np.random.default_rng(os.getpid()).standard_normal(_parameters + SHIFT * MOST_SHIFTS, np.float32) * SCALE


def model_of(study: str, parameters: int) -> Weights:
    """Return a study's version 0: a few tensors of random values, the same everywhere."""
    values = np.random.default_rng(zlib.crc32(study.encode())).standard_normal(parameters, np.float32)
    pieces = np.array_split(values, min(LAYERS, parameters))
    return {f"layer{number}.weight": piece for number, piece in enumerate(pieces)}


def hand_over(settings: SiteSettings, task_id: str) -> None:
    """Do what an order says, without patients."""
    order = read_order(settings.paths, task_id)
    if order is None:
        return
    if order.kind == "cohort":
        _count(settings, order)
        return
    study = parse_study(order.study)
    if order.kind == "initialise":
        payload = weights_payload(study, model_of(order.study["name"], _parameters))
    else:
        base = read_version(settings.paths, order.base_blob)
        began, cpu = time.perf_counter(), time.process_time()
        trained = _as_if_trained(base, order.round)
        STOOD_IN.append((order.round, time.perf_counter() - began, time.process_time() - cpu))
        payload = update_payload(study, difference(base, trained))
    hand_over_payload(settings.paths, order, payload)


def _as_if_trained(base: Weights, round_number: int) -> Weights:
    trained, start = empty_weights(manifest_of(base)), SHIFT * (round_number % MOST_SHIFTS)
    for name, values in base.items():
        np.add(values, _noise[start : start + values.size].reshape(values.shape), out=trained[name])
        start += values.size
    return trained


def _count(settings: SiteSettings, order: WorkOrder) -> None:
    members = CohortMembers(study_digest=order.study_digest, training=[f"{who:032x}" for who in range(PATIENTS)])
    figures = CohortFigures(
        study_digest=order.study_digest,
        training_patients=PATIENTS,
        training_images=PATIENTS,
        held_out_patients=0,
        manifest_digest=digest_of_bytes(settings.name.encode()),
        version_zero_digest=digest_of_bytes(encode_weights(model_of(order.study["name"], _parameters))),
        members_digest=write_members(settings.paths, members),
    )
    write_cohort_figures(settings.paths, figures)
