"""The gate where something around it is wrong: it says so once, does the rest, and goes on when it is right again."""

import errno
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from protocol.keeping import LEFT_BEHIND_SECONDS
from protocol.messages import Reason, TaskRefusal
from site_node.governance import folders
from site_node.governance.context import GateContext
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(PermissionError(errno.EACCES, "Permission denied", "outbox"), "owner"), (OSError(errno.ENOSPC, "full"), "room")],
)
def test_a_folder_that_cannot_be_used_is_told_once_and_stops_nothing_else(
    site: GatedSite, monkeypatch: pytest.MonkeyPatch, error: OSError, remedy: str
) -> None:
    study = study_of()

    def fail(context: GateContext) -> int:
        raise error

    site.propose(study)
    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(folders, "read_receipts", fail)
        site.sweep()
        site.sweep()
    told = [entry for entry in logs if entry["event"] == "folder_not_usable"]
    assert len(told) == 1
    assert remedy in told[0]["remedy"]
    assert site.verdict(f"cohort-{study.digest.removeprefix('sha256:')[:16]}") is not None
    site.count_cohort(study)
    site.sweep()
    assert len(site.sent()) == 1


def test_what_killed_processes_left_unfinished_is_removed_a_day_later(
    site: GatedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = site.paths
    copy, kept = paths.outbox / ".0000000000000001.payload.01234567", paths.gate_payloads / ".stream.01234567"
    handed = paths.candidates / ".task.01234567"
    handed.mkdir()
    for path in (copy, kept, handed / "payload.bin"):
        path.write_bytes(b"half a model")
    site.start()
    assert not kept.exists()  # the gate's own folder, which nobody else writes to
    assert copy.exists()
    assert handed.exists()
    later = copy.stat().st_ctime + LEFT_BEHIND_SECONDS + 60
    monkeypatch.setattr(folders, "time", SimpleNamespace(time=lambda: later))
    site.start()
    assert list(paths.outbox.iterdir()) == list(paths.candidates.iterdir()) == []


def test_a_version_above_the_policys_limit_is_refused_before_it_is_fetched(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.with_policy(PERMISSIVE_POLICY + "maximum_update_megabytes: 1\n")
    task = site.task(study)
    assert task.base is not None
    large = task.base.model_copy(update={"weights_bytes": (1 << 20) + 1})
    site.give(task.model_copy(update={"base": large}))
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.POLICY
    assert (site.verdict(task.task_id) or {})["verdict"] == "refuse"
