"""The agent over a wire that breaks: nothing is lost, nothing is believed unchecked, a refusal holds back one thing."""

import errno
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes, hex_of
from protocol.keeping import LEFT_BEHIND_SECONDS
from protocol.message import Message
from protocol.messages import ModelReference, Progress, RoundTask, TaskKind, UpdateNotice
from protocol.signing import SigningKey, sign
from site_node.agent import agent as agent_module
from site_node.agent.agent import Agent
from site_node.agent.backoff import LONGEST_SECONDS, Backoff
from site_node.agent.downloads import MAXIMUM_BYTES, forget_unfinished
from site_node.durable import write_durably
from site_node.enrolment import create_site, enroll_site
from site_node.errors import EnrolmentError, HubRefusedError, HubUnreachableError
from site_node.settings import SitePaths, SiteSettings
from tests.fakes.wire_hub import WireHub

BLOB = bytes(range(256)) * 40


@dataclass
class Bench:
    """An enrolled site with its agent, and the hub at the other end of the wire."""

    settings: SiteSettings
    hub: WireHub
    agent: Agent
    jobs: list[str] = field(default_factory=list)

    def mail(self, number: int, message: Message) -> None:
        self.hub.mail.append((number, sign(message.canonical_bytes(), self.hub.key)))

    def verdict(self, task_id: str, word: str = "accept") -> None:
        content = json.dumps({"task_id": task_id, "verdict": word, "reason": None}).encode()
        write_durably(self.settings.paths.verdicts / f"{task_id}.json", content)

    def put(self, number: int, message: Message, payload: bytes | None = None) -> Path:
        path = self.settings.paths.outbox / f"{number:016d}.dsse.json"
        if payload is not None:
            (self.settings.paths.outbox / f"{number:016d}.payload").write_bytes(payload)
        write_durably(path, sign(message.canonical_bytes(), SigningKey.generate()))
        return path

    def receipt(self, path: Path) -> Path:
        return self.settings.paths.receipts / path.name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    hub, jobs = WireHub(), list[str]()
    client = hub.client("st-anna", SigningKey.load_or_create(settings.paths.transport_key))
    enroll_site(settings, client, "GOOD")
    return Bench(settings, hub, Agent(settings, client, jobs.append), jobs)


def task(number: int = 1, blob: bytes = BLOB) -> RoundTask:
    base = ModelReference(
        number=0,
        weights_digest=digest_of_bytes(blob),
        weights_bytes=len(blob),
        manifest_digest=digest_of_bytes(b"m"),
    )
    return RoundTask(
        task_id=f"task-{number}",
        kind=TaskKind.TRAIN,
        study_digest=digest_of_bytes(b"study"),
        site="st-anna",
        round=number,
        sequence=number,
        base=base,
        deadline_seconds=60.0,
    )


def progress() -> Progress:
    return Progress(site="st-anna", activity="training", task_id="task-1", fraction=0.5)  # type: ignore[arg-type]


def notice(payload: bytes) -> UpdateNotice:
    return UpdateNotice(
        site="st-anna",
        task_id="task-1",
        task_digest=digest_of_bytes(b"t"),
        study_digest=digest_of_bytes(b"study"),
        round=1,
        base_digest=digest_of_bytes(BLOB),
        payload_digest=digest_of_bytes(payload),
        payload_bytes=len(payload),
        manifest_digest=digest_of_bytes(b"m"),
        steps=["difference"],
        weight=1.0,
        privacy=None,
    )


def test_mail_is_written_as_received_and_fetched_once(bench: Bench) -> None:
    bench.mail(7, task())
    assert bench.agent.step(0) == 1
    assert bench.agent.step(0) == 0
    [path] = bench.settings.paths.inbox.glob("*.dsse.json")
    assert path.name == "0000000000000007.dsse.json"
    assert path.read_bytes() == bench.hub.mail[0][1]


def test_a_restarted_agent_goes_on_at_its_cursor(bench: Bench) -> None:
    bench.mail(7, task())
    bench.agent.step(0)
    client = bench.hub.client("st-anna", SigningKey.load_or_create(bench.settings.paths.transport_key))
    assert Agent(bench.settings, client, bench.jobs.append).step(0) == 0


def test_a_control_variate_is_there_before_the_job_starts_and_stays_while_it_runs(bench: Bench) -> None:
    first, paths = task(), bench.settings.paths
    control = bytes(reversed(BLOB))
    assert first.base is not None
    reference = first.base.model_copy(update={"weights_digest": digest_of_bytes(control)})
    bench.hub.blobs[hex_of(digest_of_bytes(BLOB))] = BLOB
    bench.mail(1, first.model_copy(update={"control": reference}))
    bench.agent.step(0)
    bench.verdict("task-1")
    bench.agent.step(0)
    assert bench.jobs == []  # the hub does not have it yet
    bench.hub.blobs[hex_of(digest_of_bytes(control))] = control
    restarted = Agent(bench.settings, bench.hub.client("st-anna", _key(bench)), bench.jobs.append)
    for number in range(8):  # more than an agent keeps of what no task names
        (paths.blobs / f"{number:064x}").write_bytes(b"old")
    restarted.step(0)
    assert bench.jobs == ["task-1"]
    assert (paths.blobs / hex_of(digest_of_bytes(control))).read_bytes() == control


def _key(bench: Bench) -> SigningKey:
    return SigningKey.load_or_create(bench.settings.paths.transport_key)


def test_weights_are_there_before_the_job_starts_and_the_job_starts_once(bench: Bench) -> None:
    bench.hub.blobs[hex_of(digest_of_bytes(BLOB))] = BLOB
    bench.mail(1, task())
    bench.agent.step(0)
    bench.verdict("task-1", "wait")
    bench.agent.step(0)
    assert bench.jobs == []
    bench.verdict("task-1")
    bench.agent.step(0)
    bench.agent.step(0)
    assert bench.jobs == ["task-1"]
    assert (bench.settings.paths.blobs / hex_of(digest_of_bytes(BLOB))).read_bytes() == BLOB


def test_a_broken_download_goes_on_where_it_ended(bench: Bench) -> None:
    bench.hub.blobs[hex_of(digest_of_bytes(BLOB))] = BLOB
    bench.mail(1, task())
    bench.agent.step(0)
    bench.verdict("task-1")
    bench.hub.cut_after = 1000
    with pytest.raises(HubUnreachableError):
        bench.agent.step(0)
    assert bench.jobs == []
    bench.agent.step(0)
    assert bench.hub.ranges == ["bytes=1000-"]
    assert bench.jobs == ["task-1"]


@pytest.mark.parametrize("wrong", [bytes(len(BLOB)), BLOB + b"more"])
def test_weights_that_are_not_what_their_digest_says_are_thrown_away(bench: Bench, wrong: bytes) -> None:
    name = hex_of(digest_of_bytes(BLOB))
    bench.hub.blobs[name] = wrong
    bench.mail(1, task())
    bench.agent.step(0)
    bench.verdict("task-1")
    with pytest.raises(HubUnreachableError):
        bench.agent.step(0)
    assert bench.jobs == []
    assert list(bench.settings.paths.blobs.iterdir()) == []
    bench.hub.blobs[name] = BLOB
    bench.agent.step(0)
    assert bench.jobs == ["task-1"]


def test_a_cohort_s_job_needs_no_weights(bench: Bench) -> None:
    bench.verdict("cohort-0123456789abcdef")
    bench.agent.step(0)
    assert bench.jobs == ["cohort-0123456789abcdef"]


def test_a_message_gets_its_receipt_and_is_sent_once(bench: Bench) -> None:
    path = bench.put(1, progress())
    assert bench.agent.step(0) == 1
    assert bench.receipt(path).exists()
    bench.agent.step(0)
    assert len(bench.hub.messages) == 1


def test_an_upload_goes_on_at_the_last_byte_that_came(bench: Bench) -> None:
    payload = bytes(5 << 20)
    path = bench.put(1, notice(payload), payload)
    bench.hub.cut_after = 1 << 20
    with pytest.raises(HubUnreachableError):
        bench.agent.step(0)
    assert not bench.receipt(path).exists()
    bench.agent.step(0)
    assert bytes(bench.hub.uploads["task-1"]) == payload
    assert bench.receipt(path).exists()
    # What broke off, a small piece that finds out whether the hub is done with it, and all the rest.
    assert sum(line.startswith("PATCH") for line in bench.hub.requests) == 3


def test_a_receipt_that_the_hub_did_not_sign_is_not_believed(bench: Bench) -> None:
    path = bench.put(1, progress())
    bench.hub.signing = SigningKey.generate()
    with pytest.raises(HubUnreachableError, match="not signed"):
        bench.agent.step(0)
    assert not bench.receipt(path).exists()


def test_a_refused_message_holds_back_nothing_else(bench: Bench) -> None:
    bench.put(1, progress())
    bench.hub.refuses = True
    bench.mail(3, task())
    assert bench.agent.step(0) == 1
    assert bench.agent.step(0) == 0
    assert sum(line == "POST /v1/messages" for line in bench.hub.requests) == 1


def test_a_token_that_ended_early_is_renewed(bench: Bench) -> None:
    bench.agent.step(0)
    bench.hub.token = "another"
    bench.agent.step(0)
    assert bench.hub.tokens == 2


def test_a_hub_that_is_not_there_is_said_clearly(bench: Bench) -> None:
    bench.hub.away = True
    with pytest.raises(HubUnreachableError, match="does not answer"):
        bench.agent.step(0)


def test_nothing_is_fetched_or_started_until_damaged_versions_are_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, checks, asked_before = threading.Event(), list[int](), list[str]()

    def check(_: SitePaths) -> int:
        checks.append(len(checks))
        asked_before[:] = [*bench.hub.requests, *bench.jobs]
        if len(checks) < 3:
            raise OSError(errno.EIO, "Input/output error")
        return 0

    monkeypatch.setattr(agent_module, "check_versions", check)
    monkeypatch.setattr(Backoff, "failed", lambda _: 0.0)
    bench.hub.requests.clear()
    runner = threading.Thread(target=bench.agent.run, args=(stop,), daemon=True)
    runner.start()
    while not bench.hub.requests:
        assert runner.is_alive()
        stop.wait(0.01)
    stop.set()
    runner.join(10)
    assert checks == [0, 1, 2]
    assert asked_before == []


def test_an_agent_that_is_stopped_before_its_versions_are_checked_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def check(_: SitePaths) -> int:
        stop.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(agent_module, "check_versions", check)
    bench.hub.requests.clear()
    bench.agent.run(stop)
    assert bench.hub.requests == []


def test_a_version_that_a_killed_agent_was_adding_up_is_removed_after_a_day(bench: Bench) -> None:
    folder = bench.settings.paths.partial
    left, download = folder / f".{'a' * 64}.01234567", folder / ("b" * 64)
    for path in (left, download):
        path.write_bytes(b"half")
    now = left.stat().st_ctime
    assert forget_unfinished(bench.settings.paths, now + LEFT_BEHIND_SECONDS - 60) == 0
    assert forget_unfinished(bench.settings.paths, now + LEFT_BEHIND_SECONDS + 60) == 1
    assert list(folder.iterdir()) == [download]


def test_the_running_agent_survives_an_absent_hub(bench: Bench) -> None:
    bench.hub.away = True
    stop = threading.Event()
    runner = threading.Thread(target=bench.agent.run, args=(stop,), daemon=True)
    runner.start()
    path = bench.put(1, progress())
    bench.hub.away = False
    for _ in range(200):
        if bench.receipt(path).exists():
            break
        stop.wait(0.05)
    stop.set()
    runner.join(10)
    assert bench.receipt(path).exists()


def test_waiting_grows_with_jitter_to_a_limit() -> None:
    backoff = Backoff()
    waits = [backoff.failed() for _ in range(50)]
    assert waits[0] < 0.6
    assert LONGEST_SECONDS / 2 <= waits[-1] <= LONGEST_SECONDS
    assert len(set(waits[10:])) > 30
    assert backoff.succeeded()
    assert not backoff.succeeded()


def test_a_wrong_invitation_code_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    client = WireHub().client("st-anna", SigningKey.load_or_create(settings.paths.transport_key))
    with pytest.raises(HubRefusedError, match="invitation code"):
        enroll_site(settings, client, "BAD")
    assert not settings.paths.hub_key.exists()


def test_another_hub_than_the_expected_one_gets_no_keys(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    hub = WireHub()
    client = hub.client("st-anna", SigningKey.load_or_create(settings.paths.transport_key))
    with pytest.raises(EnrolmentError, match="not the expected"):
        enroll_site(settings, client, "GOOD", SigningKey.generate().public.text)
    assert "POST /v1/enrolments" not in hub.requests


def test_an_agent_of_a_site_that_never_enrolled_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])
    client = WireHub().client("st-anna", SigningKey.load_or_create(settings.paths.transport_key))
    with pytest.raises(EnrolmentError, match="not enrolled"):
        Agent(settings, client, lambda task_id: None)


def test_a_version_without_room_or_measure_is_held_back_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = task()
    assert first.base is not None
    monstrous = first.base.model_copy(update={"weights_bytes": MAXIMUM_BYTES + 1})
    bench.mail(1, first.model_copy(update={"base": monstrous}))
    bench.mail(2, task(2))
    bench.agent.step(0)
    for name in ("task-1", "task-2"):
        bench.verdict(name)
    monkeypatch.setattr("site_node.agent.downloads.SPARE_BYTES", 1 << 60)
    path = bench.put(1, progress())
    bench.agent.step(0)
    assert bench.jobs == []
    assert bench.receipt(path).exists()
    assert not [request for request in bench.hub.requests if "/blobs/" in request]


def test_a_task_that_the_hub_did_not_sign_names_no_weights(bench: Bench) -> None:
    bench.hub.mail.append((1, sign(task().canonical_bytes(), SigningKey.generate())))
    bench.hub.blobs[hex_of(digest_of_bytes(BLOB))] = BLOB
    bench.mail(2, task())
    bench.agent.step(0)
    bench.verdict("task-1")
    bench.agent.step(0)
    assert bench.jobs == ["task-1"]


def test_enrolling_does_not_promise_what_only_the_agent_does(bench: Bench) -> None:
    bench.hub.away = True
    with pytest.raises(HubUnreachableError) as raised:
        bench.hub.client("st-anna", SigningKey.generate()).info()
    assert "again" not in str(raised.value)
