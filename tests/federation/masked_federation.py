"""A hub and hospitals in one process that add updates under masks; the clock stands still until a test moves it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from compose.in_memory import BASE_URL, InMemoryTransport
from hub.api.app import assemble
from hub.auth.coordinator import invite_site
from hub.rounds.committing import close_round
from hub.rounds.deadlines import tick
from hub.rounds.judgements import judgements_of_version
from hub.rounds.scoring import PooledReport
from hub.rounds.views import round_views
from hub.services import Services, open_services
from hub.settings import Settings
from hub.storage import round_stores, stores
from hub.storage.masking_stores import masking_round
from hub.storage.migrate import upgrade
from hub.studies import coordinator as studies
from protocol.message import Message
from protocol.messages import parse_message
from protocol.metrics import ScoreHistograms, merge
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.vector import VectorTerms, vector_terms
from protocol.signing import read_unverified
from protocol.study import StudySpec
from protocol.study_parts import HeldOutSplit
from protocol.tensors import Weights, decode_weights
from tests.fakes.handing_site import HandingSite, masked_study, random_weights
from tests.hub.conftest import Clock, Queue

PARAMETERS = 1000
BASE = random_weights(0, PARAMETERS, 0.1)
HOUR = 3600.0
PATIENTS = (12, 250, 33, 47, 5, 18, 90, 61)
SPLITS: tuple[HeldOutSplit, ...] = ("test", "validation")
NAMES = ("anna", "bela", "clara", "dora", "emil", "fay", "gita", "hugo")
ALL = NAMES[:5]
PHASE_IS_OVER = 700.0
WITHOUT_CLARA = ("anna", "bela", "dora", "emil")
LEFT_AFTER_LOSS = {
    "keys": WITHOUT_CLARA,
    "shares": WITHOUT_CLARA,
    "uploads": WITHOUT_CLARA,
    "seen": ALL,
    "reveals": ALL,
}
"""Whose vectors are summed if clara falls silent in a phase: once hers was sent, it is in the sum."""


@dataclass
class MaskedFederation:
    """The hub, its hospitals and one study."""

    folder: Path
    count: int
    study: StudySpec = field(default_factory=lambda: masked_study(5))
    clock: Clock = field(default_factory=Clock)
    queue: Queue = field(default_factory=Queue)
    held_out: int = 0
    """How many patients each site holds out; a site of no training patients is `judging_only`."""
    judging_only: tuple[str, ...] = ()
    services: Services = field(init=False)
    sites: list[HandingSite] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._open_hub()
        for number, name in enumerate(NAMES[: self.count]):
            code = invite_site(self.services, name, "operator:console").code
            http = httpx.Client(transport=self._transport, base_url=BASE_URL)
            seed = 100 + number
            self.sites.append(
                HandingSite.make(
                    self.folder / name,
                    http,
                    code,
                    BASE,
                    0 if name in self.judging_only else PATIENTS[number],
                    self.clock,
                    held_out=self.held_out,
                    trained=lambda round_number, seed=seed: moved(seed + 1000 * round_number),
                )
            )
        for site in self.sites:
            site.pin(self.sites)

    def _open_hub(self) -> None:
        self.services = open_services(Settings(dir=self.folder / "hub"), self.queue, self.clock)
        upgrade(self.services.database)
        self._transport = InMemoryTransport(assemble(self.services))

    def restart_hub(self) -> None:
        """End the hub and start another on its folder."""
        self.close()
        self._open_hub()
        for site in self.sites:
            site.client._http = httpx.Client(transport=self._transport, base_url=BASE_URL)

    def close(self) -> None:
        self._transport.close()
        self.services.waker.close()
        self.services.database.close()

    def propose(self) -> None:
        studies.propose(self.services, self.study, [], "researcher")

    def step(self) -> int:
        """Let everybody act once; return how much was done."""
        done = sum(site.step() for site in self.sites)
        return done + self.step_of_hub()

    def step_of_hub(self) -> int:
        """Let the hub's worker and its clock act once; return how much was done."""
        asked, self.queue.items[:] = list(self.queue.items), []
        for _, arguments in asked:
            close_round(self.services, **arguments)
        return len(asked) + tick(self.services)

    def rest(self) -> None:
        """Let everybody act until nobody has anything to do."""
        for _ in range(200):
            if self.step() == 0:
                return
        raise AssertionError("the federation never rests")

    def until(self, phase: str) -> None:
        """Let everybody act until the newest round's masks are in a phase."""
        for _ in range(200):
            if self.phase() == phase:
                return
            self.step()
        raise AssertionError(f"never in phase {phase}: {self.phase()}")

    def until_round(self, number: int, phase: str) -> None:
        """Let everybody act until a round's masks are in a phase."""
        for _ in range(200):
            if self.phase(number) == phase:
                return
            self.step()
        raise AssertionError(f"round {number} is never in phase {phase}")

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.rest()

    def lose(self, *names: str) -> None:
        """Let sites fall silent, and the others act as far as they can without them."""
        for name in names:
            self.site(name).mute = True
        self.rest()

    def find_again(self, *names: str) -> None:
        """Let sites speak again, and everybody act."""
        for name in names:
            self.site(name).mute = False
        self.rest()

    def outlast(self) -> None:
        """Let the time of a phase pass, and then that of a round."""
        self.pass_time(PHASE_IS_OVER)
        self.pass_time(2 * HOUR)

    def site(self, name: str) -> HandingSite:
        return next(site for site in self.sites if site.name == name)

    def until_judging(self, number: int, phase: str) -> None:
        """Let everybody act until the masks of a version's held-out counts are in a phase."""
        for _ in range(300):
            if self.phase(number, "evaluate") == phase:
                return
            self.step()
        raise AssertionError(f"the judging of version {number} is never in phase {phase}")

    def phase(self, number: int = 1, task_kind: str = "train") -> str | None:
        with self.services.reading() as session:
            found = masking_round(session, self.study.digest, number, task_kind)
            return None if found is None else found.phase

    def rounds(self) -> list[dict[str, Any]]:
        with self.services.reading() as session:
            return round_views(session, self.study.digest, self.services.clock())

    def state(self) -> tuple[str, str]:
        with self.services.reading() as session:
            row = stores.study(session, self.study.digest)
            return row.state, row.reason

    def weights(self, version: int) -> Weights:
        with self.services.reading() as session:
            digest = stores.version(session, self.study.digest, version).weights_digest
        return decode_weights(self.services.blobs.path(digest))

    @property
    def terms(self) -> VectorTerms:
        return vector_terms(self.study, PARAMETERS)

    def expected(self, names: tuple[str, ...], number: int = 1) -> Weights:
        """Return the next version as the plain sum of these sites' own rounded integers gives it."""
        terms, sites = self.terms, [self.site(name) for name in names]
        total = np.sum([terms.ring.decode(terms.ring.from_bytes(site.handed[number].data)) for site in sites], axis=0)
        divisor = terms.divisor(sum(terms.weight_of(site.patients) for site in sites))
        mean = dequantise(total, terms.unit, divisor)
        return {"w": (BASE["w"].astype(np.float64) + mean.astype(np.float64)).astype(np.float32)}


def assert_exact(federation: MaskedFederation, names: tuple[str, ...]) -> None:
    """Version 1 is, to the bit, the plain sum of these sites' integers."""
    assert federation.state()[0] == "completed", federation.state()
    assert np.array_equal(federation.weights(1)["w"], federation.expected(names)["w"])


def opened_on(federation: MaskedFederation, version: int) -> PooledReport | None:
    """Return the opened sum of the held-out counts on a version; nobody's own report lies beside it."""
    with federation.services.reading() as session:
        found = judgements_of_version(session, federation.study.digest, version)
        assert round_stores.evaluations_of_study(session, federation.study.digest) == []
    assert all(isinstance(report, PooledReport) for report in found)
    return next((report for report in found if isinstance(report, PooledReport)), None)


def plain_sum(
    federation: MaskedFederation, names: tuple[str, ...], version: int, split: HeldOutSplit
) -> ScoreHistograms:
    return merge([federation.site(name).counted[version][split] for name in names])


def assert_pooled(federation: MaskedFederation, names: tuple[str, ...], version: int) -> None:
    """The opened counts on a version are, to the last one, the plain sum of these sites' own."""
    report = opened_on(federation, version)
    assert report is not None, federation.rounds()[version]["reason"]
    assert report.sites == names
    for split in SPLITS:
        found, expected = report.histograms[split], plain_sum(federation, names, version, split)
        assert (found.negative, found.positive) == (expected.negative, expected.positive)
        assert found.noise_variance == pytest.approx(expected.noise_variance)


def said_by(site: HandingSite) -> list[Message]:
    rows = site.gate._context.database.execute("SELECT envelope FROM envelopes ORDER BY number").fetchall()
    return [parse_message(read_unverified(row["envelope"])) for row in rows]


def moved(seed: int) -> Weights:
    """Return what a site's training made of the base."""
    return {"w": BASE["w"] + random_weights(seed, PARAMETERS, 0.1)["w"]}


@contextmanager
def masked_federation(
    folder: Path, count: int = 5, held_out: int = 0, judging_only: tuple[str, ...] = (), **changes: Any
) -> Iterator[MaskedFederation]:
    study = masked_study(count, **changes)
    federation = MaskedFederation(folder, count, study, held_out=held_out, judging_only=judging_only)
    try:
        yield federation
    finally:
        federation.close()
