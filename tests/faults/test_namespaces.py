"""DESIGN.md's first rule, proven: a study runs across real walls, and each wall is then pushed against from inside.

Four network namespaces and a user for each process: the worker reaches its Redis by a Unix socket and nothing else, the
gate reaches nothing, the agent reaches the hub. The folders' rights are given as docs/operations.md says, by its own
lines. Every attempt is made in the namespaces and as the user of the running process, and each refusal has its
counterpart: the one who should can.
"""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compose.redis_server import prepare_redis
from site_node.settings import SitePaths
from tests.fakes.dicom import make_hospital
from tests.fakes.walls import CHECKOUT, User, Walled, Zone, capabilities_of, connect, missing, network_of, user_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("walls")]

NUMBERS = {"wardround": 64001, "wardround-jobs": 64002, "wr-redis": 64003, "wr-gate": 64011, "wr-worker": 64012}
NUMBERS |= {"wr-agent": 64013, "wr-hub": 64014}
GATE = User(NUMBERS["wr-gate"], (NUMBERS["wardround"], NUMBERS["wardround-jobs"]))
WORKER = User(NUMBERS["wr-worker"], (NUMBERS["wardround"], NUMBERS["wardround-jobs"], NUMBERS["wr-redis"]))
AGENT = User(NUMBERS["wr-agent"], (NUMBERS["wardround"],))
REDIS, HUB = User(NUMBERS["wr-redis"]), User(NUMBERS["wr-hub"])
HUB_ADDRESS, HUB_PORT, AGENT_ADDRESS = "10.203.7.1", 8440, "10.203.7.2"
# Addresses kept for documents: behind the hub, somewhere in the Internet (RFC 5737, RFC 3849).
BEHIND_THE_HUB, ANYWHERE, ANYWHERE_6 = "198.51.100.1", "192.0.2.1", "2001:db8::1"
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 -- of the hub's own namespace
UNREACHABLE = {"ENETUNREACH", "EADDRNOTAVAIL"}
WARDROUND = (sys.executable, "-P", "-m", "compose.cli")
PASSWORD = "a password of this test"
POLICY = "approval: person\nmodalities: any\nminimum_patients: 2\nmaximum_delta: 1.0e-3\n"
STUDY: dict[str, Any] = {
    "name": "walled",
    "cohort": {"modality": ["DX"], "minimum_patients": 4},
    "label": {"classes": ["absent", "present"]},
    "preprocessing": {"size": [16, 16], "augmentation": "none"},
    "network": {"name": "convnet"},
    "training": {"local_steps": 4, "sampling_rate": 0.5, "learning_rate": 0.5},
    "rounds": 2,
    "participants": {"minimum_sites": 1, "training_patients": 40},
    "privacy": {"epsilon": 8.0, "delta": 1e-3},
}
RESEARCHER = """
import json, sys, time
from compose.person import Person
url, what = sys.argv[1], json.load(sys.stdin)
person = Person(url, "rita", what["password"])
path = "/v1/studies"
study = person.post(path, json=what["study"]) if "study" in what else person.get(f"{path}/{what['digest']}")
print(json.dumps({"study": study, "versions": person.get(f"{path}/{study['digest']}/versions")}))
"""


@dataclass
class Hospital:
    """One hospital behind its walls, and the hub that it knows."""

    folder: Path
    walled: Walled
    zones: dict[str, Zone]
    digest: str = ""
    outcome: dict[str, Any] = field(default_factory=dict)
    seen_at_work: set[tuple[int, User]] = field(default_factory=set)

    @property
    def paths(self) -> SitePaths:
        return SitePaths(self.folder / "site")

    @property
    def image(self) -> Path:
        return next((self.folder / "images").rglob("*.dcm"))

    @property
    def redis_socket(self) -> Path:
        return self.folder / "redis" / "redis.sock"

    def site(self, zone: str, user: User, *words: str) -> str:
        """Run a `wardround site` command as its user."""
        command, *options = words
        return self.walled.run(
            self.zones[zone], user, [*WARDROUND, "site", command, str(self.paths.root), *options], **{}
        )

    def researcher(self, **what: Any) -> dict[str, Any]:
        """Let the researcher say something at the hub and return the hub's answer."""
        words = [sys.executable, "-P", "-c", RESEARCHER, f"http://{HUB_ADDRESS}:{HUB_PORT}"]
        answer: dict[str, Any] = json.loads(
            self.walled.run(self.zones["hub"], HUB, words, stdin=json.dumps({"password": PASSWORD, **what}))
        )
        return answer

    def wait_until(self, condition: Callable[[], bool], seconds: float = 240.0) -> None:
        """Wait for something while every process lives."""
        until = time.monotonic() + seconds
        while not condition():
            for role, process in self.walled.running.items():
                assert process.poll() is None, f"{role} ended\n{self.walled.log(role)}"
            logs = "\n".join(f"{role}\n{self.walled.log(role)}" for role in self.walled.running)
            assert time.monotonic() < until, f"it did not happen in {seconds} s\n{logs}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def hospital() -> Iterator[Hospital]:
    if problem := missing():
        pytest.fail(problem)
    # Not pytest's folder, which is closed to other users; and short, because a socket's path is.
    with tempfile.TemporaryDirectory(prefix="walls-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "logs").mkdir()
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HOME": "/nonexistent"}
        made = Hospital(folder, Walled(folder / "logs", environment), {})
        try:
            build(made)
            carry_a_study(made)
            yield made
        finally:
            made.walled.stop()
            for zone in made.zones.values():
                zone.close()


def build(hospital: Hospital) -> None:
    """Raise the walls and start every process behind its own."""
    hospital.zones |= {name: Zone.make() for name in ("hub", "agent", "worker", "gate", "redis")}
    hub, agent = hospital.zones["hub"], hospital.zones["agent"]
    connect(hub, f"{HUB_ADDRESS}/30", agent, f"{AGENT_ADDRESS}/30")
    hub.ip("link set lo up")
    hub.ip(f"address add {BEHIND_THE_HUB}/32 dev lo")
    start_hub(hospital)
    make_site(hospital)
    start = hospital.walled.start
    for role, user in (("gate", GATE), ("worker", WORKER), ("agent", AGENT)):
        start(role, hospital.zones[role], user, [*WARDROUND, "site", role, str(hospital.paths.root)])


def start_redis(hospital: Hospital, role: str, zone: str, user: User, folder: Path) -> str:
    """Start the demo's own kind of Redis on a socket that its group may open; return its URL."""
    server = prepare_redis(folder, role, hospital.walled.logs / f"{role}.log")
    configuration = folder / "redis.conf"
    configuration.write_text(configuration.read_text().replace("unixsocketperm 600", "unixsocketperm 770"))
    folder.chmod(0o750)
    give(folder, user)
    hospital.walled.start(role, hospital.zones[zone], user, server.service.command)
    hospital.wait_until(server.answers, 20)
    return server.url


def start_hub(hospital: Hospital) -> None:
    home, hub = hospital.folder / "hub", hospital.zones["hub"]
    home.mkdir()
    give(home, HUB)
    redis = start_redis(hospital, "hub-redis", "hub", HUB, hospital.folder / "hub-redis")
    run = hospital.walled.run
    run(hub, HUB, [*WARDROUND, "hub", "init", str(home), "--redis", redis])
    words = [*WARDROUND, "hub", "users", "add", str(home), "rita", "--role", "researcher"]
    run(hub, HUB, words, WARDROUND_PASSWORD=PASSWORD)
    serve = [*WARDROUND, "hub", "serve", str(home), "--host", EVERY_ADDRESS, "--port", str(HUB_PORT), "--strict-port"]
    hospital.walled.start("hub", hub, HUB, serve)
    hospital.walled.start("hub-worker", hub, HUB, [*WARDROUND, "hub", "worker", str(home)])
    there = ("tcp", HUB_ADDRESS, HUB_PORT)
    hospital.wait_until(lambda: hospital.walled.in_the_place_of("hub", there) == ["ok"], 60)


def make_site(hospital: Hospital) -> None:
    """Do what an administrator does, in the order of docs/operations.md."""
    folder, root = hospital.folder, str(hospital.paths.root)
    images = folder / "images"
    make_hospital(images, patients=40)
    redis = start_redis(hospital, "redis", "redis", REDIS, folder / "redis")
    (folder / "policy.yaml").write_text(POLICY)
    hub = f"http://{HUB_ADDRESS}:{HUB_PORT}"
    options = ["--name", "st-anna", "--hub", hub, "--images", str(images), "--redis", redis, "--threads", "1"]
    as_root = [*WARDROUND, "site"]
    subprocess.run([*as_root, "init", root, *options, "--policy", str(folder / "policy.yaml")], check=True, cwd="/")
    invite = [*WARDROUND, "hub", "invite", str(folder / "hub"), "st-anna", "--json"]
    code = json.loads(hospital.walled.run(hospital.zones["hub"], HUB, invite))["code"]
    enroll = [*hospital.zones["agent"].entered(), *as_root, "enroll", root, "--code", code]
    subprocess.run(enroll, check=True, cwd="/")
    give_away_as_documented(hospital.paths.root)
    for path in (images, *images.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    give(images, WORKER)
    hospital.site("worker", WORKER, "index")


def give(folder: Path, user: User) -> None:
    subprocess.run(["chown", "-R", f"{user.number}:{user.number}", str(folder)], check=True)


def give_away_as_documented(site: Path) -> None:
    """Run the lines of docs/operations.md on the site's folder, with numbers for the names."""
    text = (CHECKOUT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    ((?:chown|find) .+)$", text.partition("## Keeping the processes apart")[2], re.MULTILINE)
    assert len(lines) >= 6, "the lines that give the folders away are no longer there"
    names = "|".join(sorted(NUMBERS, key=len, reverse=True))
    script = re.sub(rf"\b({names})\b", lambda name: str(NUMBERS[name[0]]), "\n".join(lines))
    subprocess.run(["sh", "-ec", script], check=True, cwd=site)


def carry_a_study(hospital: Hospital) -> None:
    """Propose a study, approve it as the gate's user, and wait for its end."""
    hospital.digest = hospital.researcher(study=STUDY)["study"]["digest"]

    def asked() -> bool:
        listed = json.loads(hospital.site("gate", GATE, "studies", "--json"))
        return any(study["digest"] == hospital.digest and study["state"] == "awaiting" for study in listed)

    hospital.wait_until(asked)
    hospital.site("gate", GATE, "approve", hospital.digest, "--person", "olga", "--yes")

    def ended() -> bool:
        look_at_the_workers_processes(hospital)
        hospital.outcome = hospital.researcher(digest=hospital.digest)
        return hospital.outcome["study"]["state"] not in ("proposed", "running")

    hospital.wait_until(ended)


def look_at_the_workers_processes(hospital: Hospital) -> None:
    """Note whatever runs within the worker's walls, its jobs' child processes among them."""
    walls = network_of(hospital.zones["worker"].keeper.pid)
    for entry in Path("/proc").iterdir():
        try:
            process = int(entry.name)
            if network_of(process) == walls and process != hospital.zones["worker"].keeper.pid:
                hospital.seen_at_work.add((process, user_of(process)))
        except (ValueError, OSError):
            continue  # no process, or one that has just ended


def test_a_study_of_two_rounds_completes_across_the_walls(hospital: Hospital) -> None:
    assert hospital.outcome["study"]["state"] == "completed", hospital.walled.log("worker")
    assert [version["number"] for version in hospital.outcome["versions"]] == [0, 1, 2]
    verified = json.loads(hospital.site("gate", GATE, "egress", "--verify"))
    assert verified["ok"]
    assert verified["receipts"] > 0


def test_no_process_is_root_or_could_become_it(hospital: Hospital) -> None:
    for role, user in {"gate": GATE, "worker": WORKER, "agent": AGENT, "hub": HUB, "redis": REDIS}.items():
        process = hospital.walled.running[role].pid
        assert user_of(process) == user
        assert capabilities_of(process) == set()
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process}/status").read_text(encoding="ascii")


def test_each_process_stands_in_a_network_of_its_own(hospital: Hospital) -> None:
    networks = {role: network_of(hospital.walled.running[role].pid) for role in ("hub", "gate", "worker", "agent")}
    assert len({*networks.values(), network_of(os.getpid())}) == 5


def test_the_worker_has_no_route_out_but_a_socket_to_its_redis(hospital: Hospital) -> None:
    assert set(hospital.walled.in_the_place_of("worker", *everywhere())) <= UNREACHABLE
    assert interfaces(hospital, "worker") == {"lo": "DOWN"}
    assert hospital.walled.in_the_place_of("worker", ("unix", str(hospital.redis_socket))) == ["ok"]


def test_a_job_of_the_worker_stands_within_the_worker_s_walls(hospital: Hospital) -> None:
    users = {user for _, user in hospital.seen_at_work}
    assert users == {WORKER}
    assert len(hospital.seen_at_work) >= 3  # the worker, its fork server, and a job


def test_the_gate_has_no_network_at_all(hospital: Hospital) -> None:
    assert set(hospital.walled.in_the_place_of("gate", *everywhere())) <= UNREACHABLE
    assert interfaces(hospital, "gate") == {"lo": "DOWN"}
    assert hospital.walled.in_the_place_of("gate", ("unix", str(hospital.redis_socket))) == ["EACCES"]


def test_redis_reaches_no_network_and_nothing_of_the_site(hospital: Hospital) -> None:
    assert set(hospital.walled.in_the_place_of("redis", *everywhere())) <= UNREACHABLE
    assert listing(hospital, "redis", hospital.paths.root, hospital.folder / "images") == ["EACCES"] * 2


def test_the_agent_reaches_the_hub_and_nothing_else(hospital: Hospital) -> None:
    hub, *elsewhere = everywhere()
    assert hospital.walled.in_the_place_of("agent", hub) == ["ok"]
    assert set(hospital.walled.in_the_place_of("agent", *elsewhere)) <= UNREACHABLE
    assert hospital.walled.in_the_place_of("hub", ("tcp", BEHIND_THE_HUB, HUB_PORT)) == ["ok"]  # it is there
    assert hospital.walled.in_the_place_of("agent", ("unix", str(hospital.redis_socket))) == ["EACCES"]


def test_the_agent_cannot_open_an_image_the_ledger_or_a_key(hospital: Hospital) -> None:
    paths = hospital.paths
    images = [hospital.image, paths.index, paths.noise_key]
    ledgers = [paths.gate_database, paths.identity_key]
    assert reading(hospital, "agent", *images, *ledgers) == ["EACCES"] * 5
    assert reading(hospital, "worker", *images) == ["ok"] * 3
    assert reading(hospital, "gate", *ledgers) == ["ok"] * 2
    assert listing(hospital, "agent", hospital.folder / "images", paths.cache, paths.candidates) == ["EACCES"] * 3


def test_the_worker_cannot_open_the_ledger_or_a_key_nor_put_anything_into_the_outbox(hospital: Hospital) -> None:
    paths = hospital.paths
    closed = (paths.gate_database, paths.identity_key, paths.transport_key)
    assert reading(hospital, "worker", *closed) == ["EACCES"] * 3
    assert writing(hospital, "worker", paths.outbox, paths.orders, paths.verdicts, paths.inbox) == ["EACCES"] * 4
    assert writing(hospital, "worker", paths.handover) == ["ok"]


def test_the_gate_cannot_open_an_image_or_the_noise_s_key(hospital: Hospital) -> None:
    paths = hospital.paths
    closed = (hospital.image, paths.index, paths.noise_key, paths.transport_key)
    assert reading(hospital, "gate", *closed) == ["EACCES"] * 4
    assert writing(hospital, "gate", paths.outbox) == ["ok"]


def test_only_the_gate_fills_the_outbox_and_only_the_gate_gives_orders(hospital: Hospital) -> None:
    paths = hospital.paths
    folders = (paths.outbox, paths.orders, paths.verdicts, paths.handover, paths.root)
    assert writing(hospital, "agent", *folders) == ["EACCES"] * 5
    assert writing(hospital, "agent", paths.inbox) == ["ok"]
    assert reading(hospital, "agent", paths.configuration) == ["ok"]


def test_nobody_of_the_site_may_change_the_policy(hospital: Hospital) -> None:
    rights = stat.S_IMODE((hospital.paths.root / "policy.yaml").stat().st_mode)
    assert (hospital.paths.root / "policy.yaml").stat().st_uid == 0
    assert not rights & (stat.S_IWGRP | stat.S_IWOTH)
    for role in ("gate", "worker", "agent"):
        assert writing(hospital, role, hospital.paths.root) == ["EACCES"]


def everywhere() -> list[tuple[str, str, int]]:
    """The hub first; then what lies behind it, anywhere else, a name server, and the own machine."""
    places = [("tcp", HUB_ADDRESS, HUB_PORT), ("tcp", BEHIND_THE_HUB, HUB_PORT), ("tcp", ANYWHERE, 443)]
    return [*places, ("udp", ANYWHERE, 53), ("tcp", ANYWHERE_6, 443), ("tcp", "127.0.0.1", HUB_PORT)]


def reading(hospital: Hospital, role: str, *files: Path) -> list[str]:
    return hospital.walled.in_the_place_of(role, *(("read", str(file)) for file in files))


def writing(hospital: Hospital, role: str, *folders: Path) -> list[str]:
    return hospital.walled.in_the_place_of(role, *(("write", str(folder)) for folder in folders))


def listing(hospital: Hospital, role: str, *folders: Path) -> list[str]:
    return hospital.walled.in_the_place_of(role, *(("list", str(folder)) for folder in folders))


def interfaces(hospital: Hospital, zone: str) -> dict[str, str]:
    """The network interfaces in a zone, each with whether it is up."""
    words = [*hospital.zones[zone].entered(), "ip", "-json", "link"]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return {link["ifname"]: "UP" if "UP" in link["flags"] else "DOWN" for link in found}
