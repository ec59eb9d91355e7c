"""Candidates that break their task's terms: each is refused with its reason, and nothing of it leaves."""

from dataclasses import dataclass

import pytest
import structlog

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import Reason, TaskCancelled, TaskKind, TaskRefusal, UpdateNotice
from protocol.metrics import ScoreHistograms
from protocol.tensors import encode_weights
from site_node.candidate import candidate_folder, payload_path
from site_node.durable import boot_id
from site_node.orders import order_path, read_order
from tests.fakes.gated_site import BASE, BASE_MANIFEST, GatedSite, study_of, weights


@dataclass(frozen=True)
class Bad:
    """A candidate that must not leave."""

    name: str
    payload: bytes | None = None
    changes: tuple[tuple[str, object], ...] = ()
    reason: Reason = Reason.INTERNAL


BAD_CANDIDATES = [
    Bad("tampered digest", changes=(("payload_digest", "sha256:" + "0" * 64),)),
    Bad("wrong size", changes=(("payload_bytes", 7),)),
    Bad("announced too large", changes=(("payload_bytes", 1 << 40),)),
    Bad("larger than the model", payload=encode_weights(weights()) + b"\0" * 400),
    Bad("a bomb of zeros", payload=encode_weights(weights()) + bytes(1 << 24)),
    Bad("cut off", payload=encode_weights(weights())[:-4]),
    Bad("another model", payload=encode_weights(weights(size=4))),
    Bad("another manifest", changes=(("manifest_digest", "sha256:" + "1" * 64),)),
    Bad("another task", changes=(("task_digest", "sha256:" + "2" * 64),)),
    Bad("other steps", changes=(("steps", ["weights", "zstandard"]),)),
    Bad("no model at all", payload=b"patients' names"),
    Bad("not a number", payload=encode_weights(weights(float("nan"))), reason=Reason.NOT_FINITE),
    Bad("infinite", payload=encode_weights(weights(float("inf"))), reason=Reason.NOT_FINITE),
    Bad("far too large a norm", payload=encode_weights(weights(1e20)), reason=Reason.NOT_FINITE),
    Bad("an evaluation", changes=(("kind", "evaluation"),)),
    Bad("a failure", changes=(("kind", "failure"), ("reason", Reason.OUT_OF_MEMORY)), reason=Reason.OUT_OF_MEMORY),
]


@pytest.mark.parametrize("bad", BAD_CANDIDATES, ids=lambda bad: bad.name)
def test_a_candidate_that_breaks_the_terms_is_refused_and_nothing_of_it_leaves(site: GatedSite, bad: Bad) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, bad.payload, **dict(bad.changes))
    site.sweep()
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason == bad.reason
    assert list(site.paths.outbox.glob("*.payload")) == []
    assert list(site.paths.gate_payloads.iterdir()) == []


def test_a_payload_that_a_power_cut_has_cut_short_is_made_again(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, unsynced_in="the run before the power failed")
    whole = payload_path(site.paths, task.task_id).read_bytes()
    payload_path(site.paths, task.task_id).write_bytes(whole[:-1] + b"\0")
    site.sweep()
    assert not candidate_folder(site.paths, task.task_id).exists()
    assert order_path(site.paths, task.task_id).exists()
    assert not any(isinstance(message, TaskRefusal) for message in site.everything_sent())
    site.hand_over(task)
    site.sweep()
    assert isinstance(site.sent()[-1], UpdateNotice)


@pytest.mark.parametrize("written_in", [None, "now"])
def test_a_damaged_payload_is_refused_where_the_power_did_not_fail(site: GatedSite, written_in: str | None) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, unsynced_in=written_in and boot_id())
    payload_path(site.paths, task.task_id).write_bytes(b"")
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)


HEADER_BYTES = len(BASE_MANIFEST.header)


@pytest.mark.parametrize(
    "left",
    [None, b"", bytes(len(BASE)), BASE[: HEADER_BYTES - 1]],
    ids=["missing", "empty", "zeros", "cut off"],
)
@pytest.mark.parametrize("payload_is_lost", [False, True])
def test_a_finished_update_waits_for_a_base_that_a_power_cut_took(
    site: GatedSite, left: bytes | None, payload_is_lost: bool
) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task, unsynced_in="the run before the power failed")
    if payload_is_lost:
        payload_path(site.paths, task.task_id).write_bytes(b"")
    base = site.paths.blobs / hex_of(digest_of_bytes(BASE))
    base.unlink()
    if left is not None:
        base.write_bytes(left)
    site.start()
    site.sweep()
    assert candidate_folder(site.paths, task.task_id).exists()
    assert order_path(site.paths, task.task_id).exists()
    assert not any(isinstance(message, TaskRefusal | UpdateNotice) for message in site.everything_sent())
    base.write_bytes(BASE)
    site.sweep()
    if payload_is_lost:
        assert not candidate_folder(site.paths, task.task_id).exists()
        site.hand_over(task)
        site.sweep()
    assert isinstance(site.sent()[-1], UpdateNotice)


def test_waiting_for_a_base_is_said_once(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    (site.paths.blobs / hex_of(digest_of_bytes(BASE))).unlink()
    with structlog.testing.capture_logs() as said:
        site.sweep()
        site.sweep()
    assert [entry["task"] for entry in said if entry["event"] == "base_awaited"] == [task.task_id]


def test_cancelling_ends_the_wait_for_a_base(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    (site.paths.blobs / hex_of(digest_of_bytes(BASE))).unlink()
    site.sweep()
    site.post(TaskCancelled(study_digest=study.digest, task_id=task.task_id))
    site.sweep()
    assert not candidate_folder(site.paths, task.task_id).exists()
    assert not order_path(site.paths, task.task_id).exists()


def test_an_order_names_the_run_of_the_gates_machine(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    order = read_order(site.paths, site.give(site.task(study)).task_id)
    assert order is not None
    assert order.boot == boot_id()


def test_bytes_behind_the_compressed_frame_are_refused(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    payload = site.paths.candidates / task.task_id / "payload.bin"
    longer = payload.read_bytes() + b"hidden"
    folder = site.paths.candidates / task.task_id
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    site.hand_over(task, payload_digest=digest_of_bytes(longer), payload_bytes=len(longer))
    payload.write_bytes(longer)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)


def test_a_payload_that_is_a_link_is_not_followed(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    payload = site.paths.candidates / task.task_id / "payload.bin"
    kept = payload.rename(site.paths.worker / "elsewhere.bin")
    payload.symlink_to(kept)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)


def test_an_evaluation_of_more_patients_than_approved_is_refused(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study, 1, TaskKind.EVALUATE))
    site.hand_over_scores(task, patients=21)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)


@pytest.mark.parametrize("variance", [1e-300, 1e37])
def test_an_evaluation_whose_worker_chose_the_variance_of_its_noise_is_refused(
    site: GatedSite, variance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study, 1, TaskKind.EVALUATE))
    honest = ScoreHistograms.from_scores
    changed = {"noise_variance": variance}
    monkeypatch.setattr(ScoreHistograms, "from_scores", lambda *given: honest(*given).model_copy(update=changed))
    site.hand_over_scores(task, patients=10)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)
