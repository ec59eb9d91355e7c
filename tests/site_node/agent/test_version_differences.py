"""Versions as differences at the agent: added where the earlier version is here, and the whole fetched where not."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from protocol.compression.differences import Description, difference_bytes, later_version
from protocol.digest import digest_of_bytes, hex_of
from protocol.manifest import manifest_of
from protocol.messages import ModelReference, RoundTask, TaskKind, VersionDifference
from protocol.signing import SigningKey, sign
from protocol.tensors import encode_weights, flatten
from site_node.agent.agent import Agent
from site_node.durable import write_durably
from site_node.enrolment import create_site, enroll_site
from site_node.errors import HubUnreachableError
from site_node.settings import SiteSettings
from tests.fakes.wire_hub import WireHub

STUDY = "sha256:" + "f6" * 32
MODEL = {"w": np.random.default_rng(0).normal(size=5000).astype(np.float32)}
MOVED = {"w": MODEL["w"] + np.random.default_rng(1).normal(size=5000).astype(np.float32)}
MANIFEST = manifest_of(MODEL)


@dataclass
class Bench:
    """An enrolled site whose agent has version 1, and a hub that has version 2 and the difference."""

    settings: SiteSettings
    hub: WireHub
    agent: Agent
    jobs: list[str]
    earlier: bytes
    later: bytes
    difference: bytes

    def give(self) -> None:
        """Give a task on version 2 that the gate accepts."""
        task = RoundTask(
            task_id="task-2",
            kind=TaskKind.TRAIN,
            study_digest=STUDY,
            site="st-anna",
            round=3,
            sequence=1,
            base=ModelReference(
                number=2,
                weights_digest=digest_of_bytes(self.later),
                weights_bytes=len(self.later),
                manifest_digest=MANIFEST.digest,
            ),
            difference=VersionDifference(
                from_digest=digest_of_bytes(self.earlier),
                blob=digest_of_bytes(self.difference),
                bytes=len(self.difference),
            ),
            deadline_seconds=60.0,
        )
        self.hub.mail.append((1, sign(task.canonical_bytes(), self.hub.key)))
        self.agent.step(0)
        content = json.dumps({"task_id": "task-2", "verdict": "accept", "reason": None}).encode()
        write_durably(self.settings.paths.verdicts / "task-2.json", content)

    def fetched(self) -> list[str]:
        return [line.rsplit("/", 1)[1] for line in self.hub.requests if "/v1/blobs/" in line]

    def version(self) -> bytes:
        return (self.settings.paths.blobs / name_of(self.later)).read_bytes()


def name_of(data: bytes) -> str:
    return hex_of(digest_of_bytes(data))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    hub, jobs = WireHub(), list[str]()
    client = hub.client("st-anna", SigningKey.load_or_create(settings.paths.transport_key))
    enroll_site(settings, client, "GOOD")
    moved = flatten(MOVED, MANIFEST) - flatten(MODEL, MANIFEST)
    description = Description(steps=["quantise:8", "zstandard"], study_digest=STUDY, number=2)
    earlier, difference = encode_weights(MODEL), b"".join(difference_bytes([moved], description, MANIFEST))
    paths = tmp_path / "earlier", tmp_path / "difference"
    for path, data in zip(paths, (earlier, difference), strict=True):
        path.write_bytes(data)
    later = b"".join(later_version(*paths))
    hub.blobs.update({name_of(data): data for data in (earlier, later, difference)})
    (settings.paths.blobs / name_of(earlier)).write_bytes(earlier)
    return Bench(settings, hub, Agent(settings, client, jobs.append), jobs, earlier, later, difference)


def test_a_site_that_holds_the_version_before_fetches_the_difference_alone(bench: Bench) -> None:
    bench.give()
    bench.agent.step(0)
    assert bench.jobs == ["task-2"]
    assert bench.version() == bench.later
    assert bench.fetched() == [name_of(bench.difference)]
    assert len(bench.difference) * 3 < len(bench.later)
    kept = sorted(path.name for path in bench.settings.paths.blobs.iterdir())
    assert kept == sorted([name_of(bench.earlier), name_of(bench.later)])


def test_a_difference_that_breaks_off_goes_on_at_its_last_byte(bench: Bench) -> None:
    bench.give()
    bench.hub.cut_after = 100
    with pytest.raises(HubUnreachableError):
        bench.agent.step(0)
    bench.agent.step(0)
    assert bench.hub.ranges == ["bytes=100-"]
    assert bench.version() == bench.later
    assert set(bench.fetched()) == {name_of(bench.difference)}


def test_a_site_without_the_version_before_fetches_the_whole(bench: Bench) -> None:
    (bench.settings.paths.blobs / name_of(bench.earlier)).unlink()
    bench.give()
    bench.agent.step(0)
    assert bench.version() == bench.later
    assert bench.fetched() == [name_of(bench.later)]


@pytest.mark.parametrize("fault", ["another base", "no difference", "not there"])
def test_a_difference_that_leads_elsewhere_is_not_used_and_the_whole_is_fetched(bench: Bench, fault: str) -> None:
    if fault == "another base":  # its bytes were changed on this site's disk
        damaged = bytearray(bench.earlier)
        damaged[-1] ^= 1
        (bench.settings.paths.blobs / name_of(bench.earlier)).write_bytes(damaged)
    elif fault == "no difference":
        bench.difference = b"something else"
        bench.hub.blobs[name_of(bench.difference)] = bench.difference
    else:
        del bench.hub.blobs[name_of(bench.difference)]
    bench.give()
    bench.agent.step(0)
    assert bench.jobs == ["task-2"]
    assert bench.version() == bench.later
    assert bench.fetched() == [name_of(bench.difference), name_of(bench.later)]
    assert not list(bench.settings.paths.partial.iterdir())
