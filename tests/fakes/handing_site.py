"""Hospitals with real gate and agent, whose worker hands over given weights at once: all but training is real."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from protocol.digest import digest_of_bytes
from protocol.metrics import ScoreHistograms
from protocol.secure_aggregation.histograms import bins_of
from protocol.shared_noise import shared_noise_of
from protocol.signing import PublicKey, SigningKey
from protocol.study import StudySpec, parse_study
from protocol.study_parts import HeldOutSplit
from protocol.tensors import Weights, encode_weights
from site_node.agent.agent import Agent
from site_node.agent.hub_client import HubClient
from site_node.candidate import Candidate, CohortFigures, write_candidate, write_cohort_figures
from site_node.cohort_members import CohortMembers, write_members
from site_node.enrolment import create_site, enroll_site
from site_node.governance.context import nothing
from site_node.governance.gate import Gate
from site_node.governance.peers import write_peers
from site_node.orders import WorkOrder, read_order
from site_node.privacy.noise import NoiseSource
from site_node.privacy.skellam import skellam_noise
from site_node.settings import SiteSettings
from site_node.training.local_state import LocalState
from site_node.update.steps import Payload, Rounding, difference, integers_payload, update_payload, weights_payload
from tests.fakes.gated_site import HELD_OUT, patients_of

POLICY = (
    "approval: automatic\nnetworks: any\nmodalities: any\nminimum_patients: 1\nminimum_held_out_patients: 1\n"
    "dp_required: false\n"
)
ROUNDING_KEY = b"\x05" * 32


def masked_study(sites: int, **changes: Any) -> StudySpec:
    """Return a study of one masked round; keyword arguments replace its parts."""
    data: dict[str, Any] = {
        "name": "masked",
        "cohort": {"modality": ["DX"], "minimum_patients": 1},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "convnet"},
        "rounds": 1,
        "participants": {"minimum_sites": 4, "quorum": 0.5},
        "privacy": {"epsilon": None},
        "transport": {"upload": []},
        "secure_aggregation": {"method": "masking", "maximum_sites": max(4, sites), "maximum_weight": 100},
    }
    return parse_study({**data, **changes})


@dataclass
class HandingSite:
    """One hospital. `trained` gives what its training made of the base; `mute` keeps it silent."""

    name: str
    settings: SiteSettings
    client: HubClient
    base: Weights
    patients: int
    trained: Callable[[int], Weights]
    checkpoint: Callable[[str], None] = nothing
    mute: bool = False
    held_out: int = 0
    handed: dict[int, Payload] = field(default_factory=dict)
    """What the worker handed over, by round."""
    counted: dict[int, dict[HeldOutSplit, ScoreHistograms]] = field(default_factory=dict)
    """What the worker counted of held-out patients, by version."""
    gate: Gate = field(init=False)
    agent: Agent = field(init=False)

    @classmethod
    def make(
        cls,
        folder: Path,
        http: httpx.Client,
        code: str,
        base: Weights,
        patients: int,
        clock: Callable[[], float] = time.time,
        **more: Any,
    ) -> "HandingSite":
        name = folder.name
        (folder / "images").mkdir(parents=True)
        settings = create_site(folder / "site", name, "http://hub.test", [folder / "images"], policy=POLICY)
        client = HubClient(http, name, SigningKey.load_or_create(settings.paths.transport_key), clock)
        enroll_site(settings, client, code)
        return cls(name, settings, client, base, patients, **more)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start gate and agent, or start them again after they were killed."""
        self.gate = Gate(self.settings, checkpoint=lambda step: self.checkpoint(step))
        self.agent = Agent(self.settings, self.client, self.work)

    @property
    def identity(self) -> PublicKey:
        return SigningKey.load_or_create(self.settings.paths.identity_key).public

    def pin(self, sites: "list[HandingSite]") -> None:
        write_peers(self.settings.paths, {other.name: other.identity for other in sites if other is not self})

    def step(self) -> int:
        return 0 if self.mute else self.gate.sweep() + self.agent.step(0.0)

    def work(self, task_id: str) -> None:
        """Do what the worker does, without patients."""
        order = read_order(self.settings.paths, task_id)
        assert order is not None
        if order.kind == "cohort":
            write_cohort_figures(self.settings.paths, self._figures(order))
            return
        study = parse_study(order.study)
        if order.kind == "evaluate":
            self._count(study, order)
            return
        if order.kind == "initialise":
            payload = weights_payload(study, self.base)
        elif study.privacy.mechanism == "shared-noise":
            payload = integers_payload(self.base, self._noise_share(study, order))
        else:
            draws = NoiseSource(ROUNDING_KEY, order.task_digest, self.name).rounding.halves
            update = difference(self.base, self.trained(order.round))
            state = LocalState(self.settings.paths.local_state, study.digest, order.round)
            payload = update_payload(study, update, Rounding(self.patients, draws, order.round, state))
        self.handed[order.round] = payload
        candidate = Candidate(
            task_id=task_id,
            task_digest=order.task_digest,
            kind="update",
            payload_digest=digest_of_bytes(payload.data),
            payload_bytes=len(payload.data),
            manifest_digest=payload.manifest_digest,
            steps=list(payload.steps),
        )
        write_candidate(self.settings.paths, candidate, payload.data)

    def _count(self, study: StudySpec, order: WorkOrder) -> None:
        """Score half of the held-out patients as validation, the others as test; noised where the study asks for it."""
        rng = np.random.default_rng([order.round, *self.name.encode()])
        draw, epsilon = NoiseSource(ROUNDING_KEY, order.task_digest, self.name), study.evaluation.noise_epsilon
        self.counted[order.round] = {}
        for split in study.evaluation.splits:
            labels = rng.integers(0, 2, self.held_out // 2)
            scores = 1 / (1 + np.exp(-rng.normal(labels.astype(float) * (1 + order.round), 1.0)))
            exact = ScoreHistograms.from_scores(scores, labels, bins_of(study))
            noised = exact if epsilon is None else exact.noised(epsilon, draw.histograms.two_sided_geometric)
            self.counted[order.round][split] = noised
        candidate = Candidate(
            task_id=order.task_id,
            task_digest=order.task_digest,
            kind="evaluation",
            histograms=self.counted[order.round],
        )
        write_candidate(self.settings.paths, candidate)

    def _noise_share(self, study: StudySpec, order: WorkOrder) -> NDArray[np.int64]:
        """Return a step in which nobody was drawn: the site's share of the noise alone."""
        stream = NoiseSource(ROUNDING_KEY, order.task_digest, self.name).gradients
        values = sum(array.size for array in self.base.values())
        return skellam_noise(stream, values, shared_noise_of(study).share_variance(order.noise_multiplier or 0.0))

    def _figures(self, order: WorkOrder) -> CohortFigures:
        members = CohortMembers(
            study_digest=order.study_digest,
            training=patients_of(0, self.patients),
            held_out=patients_of(HELD_OUT, self.held_out),
        )
        return CohortFigures(
            study_digest=order.study_digest,
            training_patients=self.patients,
            training_images=self.patients,
            held_out_patients=self.held_out,
            manifest_digest=digest_of_bytes(self.name.encode()),
            version_zero_digest=digest_of_bytes(encode_weights(self.base)),
            members_digest=write_members(self.settings.paths, members),
        )


def random_weights(seed: int, parameters: int, scale: float) -> Weights:
    """Return a model of one tensor with so many values."""
    return {"w": (np.random.default_rng(seed).standard_normal(parameters) * scale).astype(np.float32)}
