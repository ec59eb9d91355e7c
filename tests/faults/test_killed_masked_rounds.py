"""A hundred kills of gates and agents, at steps that chance chooses, over masked studies with sites that fall silent.

The worker is the worst that it can be: asked twice for the same task it hands over another vector. Whatever is killed
when, one mask never covers two vectors that leave, and each version is, to the bit, the plain sum of the vectors that
left, or its round has failed closed. Seeds are printed and can be given again (WARDROUND_FAULTS_SEED).
"""

import os
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from compose.in_memory import BASE_URL
from hub.registry.lineage import read_lineage
from hub.storage import round_stores, stores
from protocol.digest import digest_of_file
from protocol.messages import UpdateNotice
from protocol.secure_aggregation.fixed_point import dequantise
from protocol.secure_aggregation.masking import SignedMask
from protocol.secure_aggregation.vector import VectorTerms
from protocol.secure_messages import MaskingReveal
from site_node.governance import hidden_answers, masked_output
from site_node.settings import SitePaths
from tests.fakes.handing_site import HandingSite
from tests.federation.masked_federation import PHASE_IS_OVER, MaskedFederation, masked_federation, moved, said_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SEED = int(os.environ.get("WARDROUND_FAULTS_SEED", secrets.randbelow(1 << 32)))
KILLS = 100
STUDY: dict[str, Any] = {"rounds": 3, "privacy": {"epsilon": None, "spare_tasks": 3}}
CHANCE_OF_KILL, CHANCE_OF_HUB_RESTART, CHANCE_OF_SILENCE = 0.03, 0.03, 0.05
CHANCE_AT_A_SECRET = 0.2
AT_A_SECRET = frozenset({"candidate read", "vector masked", "output recorded", "shares made", "reveal made"})
"""Steps beside which something leaves that may leave once; they are few, so chance is helped."""
MOST_STEPS = 600
MOST_STUDIES = 60


class KilledError(Exception):
    """A site's process is killed here."""


@dataclass(frozen=True)
class Masked:
    """A vector that a gate has masked: with what, and what lay under it."""

    keys: tuple[bytes, ...]
    words: bytes


@dataclass
class Deaths(httpx.BaseTransport):
    """Kills one site: its gate at its checkpoints, its agent before a request or when the answer has come."""

    site: HandingSite
    chance: random.Random
    inner: httpx.BaseTransport
    steps: Counter[str] = field(default_factory=Counter)

    def at(self, step: str) -> None:
        if self.chance.random() < (CHANCE_AT_A_SECRET if step in AT_A_SECRET else CHANCE_OF_KILL):
            self.steps[step] += 1
            raise KilledError(step)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.at("before a request")
        answer = self.inner.handle_request(request)
        self.at("answer on its way")
        return answer


@dataclass
class RandomDeaths:
    """One study whose sites are killed, whose hub is restarted, and in which at most one site is silent at a time."""

    federation: MaskedFederation
    chance: random.Random
    masked: dict[str, Masked]
    deaths: dict[str, Deaths] = field(default_factory=dict)
    left: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    calls: Counter[tuple[str, int]] = field(default_factory=Counter)

    def go(self) -> None:
        for site in self.federation.sites:
            self.deaths[site.name] = Deaths(site, self.chance, self.federation._transport)
            site.checkpoint = self.deaths[site.name].at
            site.trained = lambda number, name=site.name: self._another_each_time(name, number)  # type: ignore[misc]
        self._through_deaths()
        self.federation.propose()
        for _ in range(MOST_STEPS):
            if self.federation.state()[0] in ("completed", "failed"):
                return
            self._disturb()
            self._step()
        raise AssertionError(f"the study never ends: {self.federation.rounds()[-1]}")

    def _another_each_time(self, name: str, number: int) -> dict[str, Any]:
        self.calls[name, number] += 1
        return moved(sum(name.encode()) + 1000 * number + 100_000 * self.calls[name, number])

    def _through_deaths(self) -> None:
        for site in self.federation.sites:
            deaths = self.deaths[site.name]
            deaths.inner = self.federation._transport
            site.client._http = httpx.Client(transport=deaths, base_url=BASE_URL)

    def _disturb(self) -> None:
        silent = [site for site in self.federation.sites if site.mute]
        if silent and self.chance.random() < 2 * CHANCE_OF_SILENCE:
            silent[0].mute = False
        elif not silent and self.chance.random() < CHANCE_OF_SILENCE:
            self.chance.choice(self.federation.sites).mute = True
        if self.chance.random() < CHANCE_OF_HUB_RESTART:
            self.federation.restart_hub()
            self._through_deaths()

    def _step(self) -> None:
        done = 0
        for site in self.federation.sites:
            try:
                done += site.step()
            except KilledError:
                done += 1
                site.gate.close()
                self._start(site)
            self._look(site)
        done += self.federation.step_of_hub()
        if not done:
            self.federation.clock.now += PHASE_IS_OVER

    def _start(self, site: HandingSite) -> None:
        for _ in range(100):
            try:
                site.start()
                return
            except KilledError:  # as it starts
                continue
        raise AssertionError("it never starts")

    def _look(self, site: HandingSite) -> None:
        """Note whatever lies in the outbox: from there it leaves."""
        for path in site.settings.paths.outbox.glob("[!.]*.payload"):
            digest = digest_of_file(path)
            if digest in self.masked:
                self.left[site.name, digest].add(path.name)

    def assert_one_vector_under_each_mask(self) -> None:
        for site in self.federation.sites:
            notices = [said for said in said_by(site) if isinstance(said, UpdateNotice) and "masked" in said.steps]
            recorded = {notice.payload_digest for notice in notices}
            assert len(recorded) == len(notices)
            assert {digest for name, digest in self.left if name == site.name} <= recorded
            under: dict[bytes, set[bytes]] = defaultdict(set)
            for digest in recorded:
                for key in self.masked[digest].keys:
                    under[key].add(self.masked[digest].words)
            assert all(len(words) == 1 for words in under.values()), "one mask covered two vectors"
            reveals = [said.round for said in said_by(site) if isinstance(said, MaskingReveal)]
            assert len(set(reveals)) == len(reveals), "a site revealed twice for a round"

    def assert_versions_are_plain_sums(self) -> int:
        """Return how many versions there are."""
        federation, terms = self.federation, self.federation.terms
        with federation.services.reading() as session:
            digest = federation.study.digest
            tasks = {task.digest: task for task in round_stores.tasks_of_study(session, digest)}
            versions = {v.number: read_lineage(v.lineage) for v in stores.versions(session, digest)}
        for earlier, number in pairwise(sorted(versions)):  # a round that failed has no version
            lineage = versions[number]
            summed = [(part["site"], tasks[part["task_digest"]].task_id) for part in lineage["participants"]]
            total = np.sum([self._decoded(terms, *one) for one in summed], axis=0)
            divisor = terms.divisor(sum(terms.weight_of(federation.site(name).patients) for name, _ in summed))
            mean = dequantise(total, terms.unit, divisor)
            before = federation.weights(earlier)["w"].astype(np.float64)
            expected = (before + mean.astype(np.float64)).astype(np.float32)
            assert np.array_equal(federation.weights(number)["w"], expected)
        return len(versions)

    def _decoded(self, terms: VectorTerms, name: str, task_id: str) -> Any:
        (notice,) = [
            said
            for said in said_by(self.federation.site(name))
            if isinstance(said, UpdateNotice) and said.task_id == task_id
        ]
        return terms.ring.decode(terms.ring.from_bytes(self.masked[notice.payload_digest].words))


def test_a_hundred_kills_never_bring_two_vectors_under_one_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: dict[str, Masked] = {}

    def write_masked(
        paths: SitePaths, plain: Path, terms: VectorTerms, weight: int, masks: Sequence[SignedMask]
    ) -> tuple[str, int]:
        words = plain.read_bytes()
        digest, size = masked_output.write_masked(paths, plain, terms, weight, masks)
        masked[digest] = Masked(tuple(mask.key for mask in masks), words)
        return digest, size

    monkeypatch.setattr(hidden_answers, "write_masked", write_masked)
    killed, outcomes, versions = Counter[str](), Counter[str](), 0
    for seed in range(SEED, SEED + MOST_STUDIES):
        print(f"WARDROUND_FAULTS_SEED={seed}")  # noqa: T201 - to be repeated by a person
        with masked_federation(tmp_path / str(seed), 5, **STUDY) as federation:
            run = RandomDeaths(federation, random.Random(seed), masked)  # noqa: S311 - moments, not secrets
            run.go()
            run.assert_one_vector_under_each_mask()
            versions += run.assert_versions_are_plain_sums()
            outcomes[federation.state()[0]] += 1
            killed.update(sum((one.steps for one in run.deaths.values()), Counter()))
        if killed.total() >= KILLS:
            break
    print(dict(killed), dict(outcomes), f"{versions} versions")  # noqa: T201
    assert killed.total() >= KILLS
    assert outcomes["completed"] > outcomes["failed"]
    assert set(killed) >= AT_A_SECRET
