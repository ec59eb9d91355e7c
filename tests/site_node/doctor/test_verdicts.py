"""What the doctor makes of what was seen: pure, with figures that one can check by hand."""

import httpx
import pytest

from site_node.doctor import clock, decoders, disk, gpu, hub, memory, pacs, queue, registration, separation, standing
from site_node.doctor.finding import Level, Part, exit_status
from site_node.errors import PacsAwayError, PacsRefusedError

GIB = 1 << 30
DAY = 86400.0


@pytest.mark.parametrize(
    ("levels", "status"),
    [([], 0), (["ok", "ok"], 0), (["ok", "warning"], 1), (["ok", "unseen"], 1), (["unseen", "problem"], 2)],
)
def test_the_exit_status_is_that_of_the_worst_finding(levels: list[Level], status: int) -> None:
    assert exit_status(levels) == status


def test_the_skew_is_that_of_the_middle_between_asking_and_answering() -> None:
    # asked at 1000, answered at 1004: at 1002 the hub's clock showed between 900 and 901
    skew = clock.skew_of("Thu, 01 Jan 1970 00:15:00 GMT", 1000.0, 1004.0)
    assert skew is not None
    assert skew.ahead_seconds == pytest.approx(101.5)
    assert skew.uncertain_seconds == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("ahead", "uncertain", "level"),
    [
        (0.4, 0.5, "ok"), (-5.4, 0.5, "ok"), (5.6, 0.5, "warning"), (-30.0, 0.5, "warning"),
        (60.4, 0.5, "warning"), (60.6, 0.5, "problem"), (-3600.0, 0.5, "problem"), (70.0, 66.0, "ok"),
    ],
)  # fmt: skip
def test_only_a_skew_beyond_what_cannot_be_told_apart_counts(ahead: float, uncertain: float, level: Level) -> None:
    assert clock.verdict_on_skew(clock.Skew(ahead, uncertain)).level == level


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_hub_without_a_date_is_a_warning(date: str | None) -> None:
    assert clock.verdict_on_skew(clock.skew_of(date, 0.0, 1.0)).level == "warning"


def test_a_kernel_that_does_not_tell_of_ntp_is_no_fault() -> None:
    assert [clock.verdict_on_ntp(kept).level for kept in (True, None, False)] == ["ok", "ok", "warning"]


@pytest.mark.parametrize(
    ("free", "names", "kind", "writable", "level"),
    [
        (50, 10**6, "ext4", True, "ok"), (5, 10**6, "ext4", True, "warning"), (0.5, 10**6, "ext4", True, "problem"),
        (50, 10, "ext4", True, "problem"), (50, None, "btrfs", True, "ok"), (50, 10**6, "nfs4", True, "warning"),
        (50, 10**6, "ext4", False, "problem"),
    ],
)  # fmt: skip
def test_a_disk_needs_room_names_and_to_be_local(
    free: float, names: int | None, kind: str, writable: bool, level: Level
) -> None:
    room = disk.Room(int(free * GIB), 100 * GIB, names, kind, writable)
    assert disk.verdict_on_room("the worker's folder", room, must_write=True).level == level


def test_a_cache_key_beside_the_cache_is_a_warning() -> None:
    assert [disk.verdict_on_cache_key(is_beside).level for is_beside in (True, False)] == ["warning", "ok"]


@pytest.mark.parametrize(
    ("left", "level"), [(None, "warning"), (GIB // 2, "problem"), (2 * GIB, "warning"), (8 * GIB, "ok")]
)
def test_memory_is_judged_by_what_is_left(left: int | None, level: Level) -> None:
    assert memory.verdict_on_memory(left).level == level


def test_shared_memory_counts_for_each_process_of_a_job() -> None:
    mib = 1 << 20
    found = [memory.verdict_on_shared(64 * mib, True, processes).level for processes in (1, 2)]
    assert found == ["ok", "warning"]
    assert memory.verdict_on_shared(GIB, False, 1).level == "problem"
    assert memory.verdict_on_shared(None, False, 1).level == "problem"


def test_a_control_group_s_limit_counts_where_it_is_smaller() -> None:
    assert memory.available_bytes("MemAvailable: 8 kB\n", "max\n", "1\n") == 8192
    assert memory.available_bytes("MemAvailable: 8 kB\n", "5000\n", "1000\n") == 4000
    assert memory.available_bytes(None, "5000\n", "6000\n") == 0
    assert memory.available_bytes(None, None, None) is None


@pytest.mark.parametrize(
    ("listed", "devices", "seen", "keep", "level"),
    [
        (None, 0, 0, 0, "ok"), (None, 0, 0, 1, "ok"), (2, 2, 2, 0, "ok"), (2, 2, 2, 1, "ok"), (2, 2, 2, 2, "problem"),
        (2, 2, 0, 0, "problem"), (None, 1, 0, 0, "problem"), (4, 4, 1, 0, "warning"),
    ],
)  # fmt: skip
def test_gpus_that_jobs_do_not_see_are_a_problem(
    listed: int | None, devices: int, seen: int, keep: int, level: Level
) -> None:
    assert gpu.verdict_on_gpus(gpu.Gpus(listed, devices, seen), keep).level == level


def test_a_redis_that_refuses_us_is_told_from_one_that_is_away_and_no_password_is_shown() -> None:
    url = "redis://wr-worker:hunter2@redis.hospital:6379/0"
    refused = queue.verdict_on_failure(RuntimeError("WRONGPASS invalid username-password pair"), url)
    away = queue.verdict_on_failure(ConnectionError("refused"), url)
    assert "does not let the worker in" in refused.says
    assert "does not answer" in away.says
    assert "hunter2" not in f"{refused}{away}"
    assert "redis.hospital:6379" in refused.says


def test_a_decoder_that_gives_other_values_is_a_problem_as_one_that_gives_none() -> None:
    exact, lossy = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50"
    assert decoders.verdict_on_syntaxes({exact: 0.0, lossy: 4.0}).level == "ok"
    wrong = decoders.verdict_on_syntaxes({exact: 1.0, lossy: None})
    assert wrong.level == "problem"
    assert wrong.says == "Not decoded: JPEG Baseline (Process 1). Decoded to other values: RLE Lossless."


@pytest.mark.parametrize(
    ("standing_here", "ends_in_days", "level", "word"),
    [
        ("approved", None, "ok", "1 studies"), ("approved", 15, "ok", "1 studies"),
        ("approved", 13.5, "warning", "13.5 days"), ("expired", -1, "warning", "xpired"),
    ],
)  # fmt: skip
def test_approvals_are_named_before_they_end(
    standing_here: str, ends_in_days: float | None, level: Level, word: str
) -> None:
    ends_at = None if ends_in_days is None else 1000.0 + ends_in_days * DAY
    found = registration.verdict_on_approvals([registration.Approval("sha256:1f3a", standing_here, ends_at)], 1000.0)
    assert found.level == level
    assert word in found.says


def test_the_ledger_s_two_ways_of_being_old_are_told_apart() -> None:
    found = [registration.verdict_on_ledger(*old) for old in ((False, False), (True, False), (False, True))]
    assert [finding.level for finding in found] == ["ok", "problem", "problem"]
    assert len({finding.says for finding in found}) == 3


@pytest.mark.parametrize(
    ("accepted", "begins"),
    [((), "Idle"), (("train",), "Training"), (("evaluate",), "Evaluating"), (("initialise",), "At")],
)
def test_idle_training_and_evaluating_are_told_apart(accepted: tuple[str, ...], begins: str) -> None:
    assert standing.verdict_on_work(standing.Work(accepted, 0, False)).says.startswith(begins)
    assert standing.verdict_on_work(standing.Work(accepted, 0, True)).says.startswith("Paused")
    assert standing.verdict_on_work(standing.Work(accepted, 0, False, True)).says.startswith("Draining")


def test_a_site_that_waits_for_its_hours_is_not_merely_idle() -> None:
    assert "train_hours" in standing.verdict_on_work(standing.Work((), 1, False, trains_now=False)).says


def test_folders_open_to_all_are_a_problem_and_one_user_for_all_a_warning() -> None:
    closed = 0o2700
    apart: dict[Part, separation.Owned] = {
        "gate": separation.Owned(1, closed),
        "worker": separation.Owned(2, closed),
        "agent": separation.Owned(3, closed),
    }
    assert [f.level for f in separation.verdicts_on_owners(apart)] == ["ok"]
    together = {**apart, "agent": separation.Owned(2, closed)}
    assert [f.level for f in separation.verdicts_on_owners(together)] == ["warning"]
    open_to_all = {**apart, "gate": separation.Owned(1, 0o2704)}
    assert [f.level for f in separation.verdicts_on_owners(open_to_all)] == ["problem", "ok"]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (httpx.ProxyError("407 Proxy Authentication Required"), "does not let us"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer"), "no authority trusted"),
        (httpx.ConnectTimeout("timed out"), "within the time"),
        (httpx.ConnectError("Name or service not known"), "cannot be reached"),
    ],
)
def test_each_way_of_not_reaching_the_hub_has_its_remedy_and_no_proxy_password_is_shown(
    error: Exception, word: str
) -> None:
    environment = {"HTTPS_PROXY": "http://ward:round@proxy.hospital:3128"}
    found = hub.verdict_on_failure(error, "https://hub.example.org", environment)
    assert found.level == "problem"
    assert word in found.says
    assert "proxy.hospital:3128" in found.says
    assert "round@" not in f"{found.says}{found.remedy}"


def test_what_answers_like_a_hub_and_is_none_is_told() -> None:
    page = httpx.Response(200, text="<html>Please sign in to the hospital's guest network</html>")
    found = hub.verdict_on_answer(page, None, "https://hub.example.org", {})
    assert (found.level, "no Wardround hub" in found.says) == ("problem", True)
    wants = hub.verdict_on_answer(httpx.Response(407), None, "https://hub.example.org", {})
    assert "user and a password" in wants.says


def test_a_bundle_that_is_not_there_is_named() -> None:
    environment = {"SSL_CERT_FILE": "/etc/ssl/hospital.pem"}
    assert hub.verdict_on_bundle(environment, lambda _: False)[0].level == "problem"
    assert hub.verdict_on_bundle(environment, lambda _: True)[0].level == "ok"
    assert hub.verdict_on_bundle({}, lambda _: False) == []


def test_a_pacs_that_is_away_is_told_from_one_that_refuses_us() -> None:
    away, refused = (
        pacs.verdict_on_failure(PacsAwayError("it is away")),
        pacs.verdict_on_failure(PacsRefusedError("no")),
    )
    assert away.level == refused.level == "problem"
    assert away.remedy != refused.remedy
