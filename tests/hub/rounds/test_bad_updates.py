"""Updates that are not what they should be: refused with a reason, recorded, and the round closes all the same."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard

from hub.errors import HubError, NotFoundError, NotPermittedError, StateError
from hub.rounds import messages, uploads
from hub.rounds.deadlines import tick
from hub.rounds.transfers import TRANSFERS
from hub.storage import audit_stores, round_stores
from protocol.errors import SignatureError
from protocol.messages import RoundTask, TaskKind, UpdateNotice
from protocol.tensors import encode_weights
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import EVENTS, Bench, filled, study_of, weights_of

pytestmark = pytest.mark.both_databases

ZSTANDARD = {"transport": {"upload": ["zstandard"]}}
ODD = {"bias": np.ones(3, np.float32), "kernel": np.ones((1, 2), np.float32)}


@pytest.fixture
def task(bench: Bench) -> RoundTask:
    bench.begin(study_of())
    return bench.tasks(TaskKind.TRAIN)[0]


def refusal(bench: Bench, task: RoundTask, notice: UpdateNotice, payload: bytes, piece: int = 1 << 20) -> str:
    """Send something bad; check that it is recorded, and that the others' round closes; return the reason."""
    receipt = bench.receipt(bench.send(task, notice, payload, piece))
    assert not receipt.accepted
    with bench.services.reading() as session:
        row = round_stores.task(session, task.task_id)
        assert row is not None
        assert (row.state, row.reason) == ("refused", receipt.reason)
        entries = [entry.entry for entry in audit_stores.entries(session, 0, 1000)]
        assert sum(b'"action":"update.refused"' in entry for entry in entries) == 1
    assert not any(bench.services.settings.uploads.iterdir())
    for other in bench.tasks(TaskKind.TRAIN):
        bench.update(other, filled(1.0))
    bench.close()
    np.testing.assert_array_equal(bench.weights(1)["bias"], np.ones(2, np.float32))
    return receipt.reason


def test_not_a_number(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(weights_of(1, 2, float("nan"), 4, 5))
    assert "not finite" in refusal(bench, task, bench.notice(task, payload), payload)


def test_infinity(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(weights_of(1, 2, 3, 4, float("-inf")))
    assert "not finite" in refusal(bench, task, bench.notice(task, payload), payload, piece=3)


def test_another_shape(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(ODD)
    notice = bench.notice(task, payload)
    assert len(payload) == len(encode_weights(filled(0)))
    assert "tensors are not those" in refusal(bench, task, notice, payload)


def test_another_manifest_announced(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(ODD)
    assert "manifest" in refusal(bench, task, bench.notice(task, payload, ODD), payload)


def test_too_long(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(filled(1e6))
    assert "norm" in refusal(bench, task, bench.notice(task, payload), payload)


def test_more_bytes_announced_than_the_model_has(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(filled(1.0)) + b"more"
    assert "were announced" in refusal(bench, task, bench.notice(task, payload), payload)


def test_other_bytes_than_announced(bench: Bench, task: RoundTask) -> None:
    notice = bench.notice(task, encode_weights(filled(1.0)))
    assert "announced digest" in refusal(bench, task, notice, encode_weights(filled(2.0)))


def test_cut_off_after_opening(bench: Bench) -> None:
    bench.begin(study_of(**ZSTANDARD))
    task = bench.tasks(TaskKind.TRAIN)[0]
    payload = zstandard.compress(encode_weights(filled(1.0))[:-4])
    assert "cut off" in refusal(bench, task, bench.notice(task, payload), payload)


def test_a_frame_that_ends_early(bench: Bench) -> None:
    bench.begin(study_of(**ZSTANDARD))
    task = bench.tasks(TaskKind.TRAIN)[0]
    payload = zstandard.compress(encode_weights(filled(1.0)))[:-6]
    assert "cut off" in refusal(bench, task, bench.notice(task, payload), payload)


def test_no_zstandard_frame(bench: Bench) -> None:
    bench.begin(study_of(**ZSTANDARD))
    task = bench.tasks(TaskKind.TRAIN)[0]
    payload = encode_weights(filled(1.0))
    assert "Zstandard" in refusal(bench, task, bench.notice(task, payload), payload)


def test_a_bomb(bench: Bench) -> None:
    bench.begin(study_of(**ZSTANDARD))
    task = bench.tasks(TaskKind.TRAIN)[0]
    payload = zstandard.ZstdCompressor(level=19).compress(encode_weights(filled(1.0)) + bytes(256 << 20))
    assert len(payload) < 64 << 10
    assert "more values" in refusal(bench, task, bench.notice(task, payload), payload)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task_digest": EVENTS}, "task"),
        ({"base_digest": EVENTS}, "base version"),
        ({"round": 2}, "round"),
        ({"steps": ["weights"]}, "steps"),
        ({"steps": ["difference", "zstandard"]}, "steps"),
        ({"weight": 1000.0}, "weight"),
        ({"payload_bytes": 0}, "between 1"),
    ],
)
def test_terms_of_another_task(bench: Bench, task: RoundTask, change: dict[str, Any], reason: str) -> None:
    payload = encode_weights(filled(1.0))
    assert reason in refusal(bench, task, bench.notice(task, payload, **change), payload)


@pytest.mark.parametrize(
    "change",
    [{"privacy": None}, {"delta": 1e-3}, {"epsilon": 7.99}, {"epsilon": 0.1}, {"events_digest": "sha256:" + "e" * 64}],
)
def test_a_private_study_wants_an_account_of_what_was_spent(bench: Bench, change: dict[str, Any]) -> None:
    bench.begin(study_of(privacy={"epsilon": 8.0, "delta": 1e-4}, participants={"training_patients": 100}))
    task = bench.tasks(TaskKind.TRAIN)[0]
    payload = encode_weights(filled(1.0))
    notice = bench.notice(task, payload)
    if "privacy" not in change:
        assert notice.privacy is not None
        change = {"privacy": notice.privacy.model_copy(update=change)}
    assert re.search(
        "privacy|its events give|was charged", refusal(bench, task, notice.model_copy(update=change), payload)
    )


def test_unsigned_is_turned_away_and_audited_and_the_task_stays_open(bench: Bench, task: RoundTask) -> None:
    notice = bench.notice(task, encode_weights(filled(1.0)))
    stranger = replace(bench.hospital("anna"), identity=bench.hospital("bela").identity)
    with pytest.raises(SignatureError):
        uploads.announce(bench.services, "anna", stranger.signed(notice))
    with pytest.raises(SignatureError):
        uploads.announce(bench.services, "anna", notice.canonical_bytes())
    with bench.services.reading() as session:
        entries = [entry.entry for entry in audit_stores.entries(session, 0, 1000)]
    assert sum(b'"action":"message.refused"' in entry for entry in entries) == 2
    assert task.task_id in {waiting.task_id for waiting in bench.tasks(TaskKind.TRAIN)}


def test_a_site_answers_only_for_itself(bench: Bench, task: RoundTask) -> None:
    notice = bench.notice(task, encode_weights(filled(1.0)))
    bela = bench.hospital("bela")
    with pytest.raises(NotPermittedError):
        uploads.announce(bench.services, "bela", bela.signed(notice))
    with pytest.raises(NotFoundError):
        uploads.announce(bench.services, "bela", bela.signed(notice.model_copy(update={"site": "bela"})))
    state = bench.announce(task, notice)
    with pytest.raises(NotFoundError):
        uploads.look_up(bench.services, "bela", state.upload_id)


def test_a_cut_off_transfer_goes_on_at_its_last_byte_after_the_hub_was_killed(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(filled(1.5))
    notice = bench.notice(task, payload)
    state = bench.announce(task, notice)
    state = bench.send_piece(task, state, payload, 50)
    assert (state.offset, state.receipt) == (50, None)
    TRANSFERS.drop(bench.services.settings.uploads, state.upload_id)  # all that the process knew
    again = bench.announce(task, notice)
    assert again.offset == 50
    done = bench.send(task, notice, payload, piece=7)
    assert bench.receipt(done).accepted
    for other in bench.tasks(TaskKind.TRAIN):
        bench.update(other, filled(1.5))
    bench.close()
    np.testing.assert_array_equal(bench.weights(1)["bias"], np.full(2, 1.5, np.float32))


def test_a_hub_killed_after_the_last_byte_settles_when_it_is_asked_again(
    bench: Bench, task: RoundTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = encode_weights(filled(1.0))
    notice = bench.notice(task, payload)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploads, "_accept", killed)
        with pytest.raises(KeyboardInterrupt):
            bench.send(task, notice, payload)
    TRANSFERS.drop(bench.services.settings.uploads, bench.announce(task, notice).upload_id)
    assert bench.receipt(bench.announce(task, notice)).accepted
    with bench.services.reading() as session:
        assert len(round_stores.updates_of_round(session, bench.study.digest, 1)) == 1


def test_a_transfer_that_its_round_did_not_wait_for_is_cleared_away(
    bench: Bench, task: RoundTask, clock: Clock
) -> None:
    payload = encode_weights(filled(1.0))
    notice = bench.notice(task, payload)
    bench.send_piece(task, bench.announce(task, notice), payload, 50)
    for other in bench.tasks(TaskKind.TRAIN)[1:]:
        bench.update(other, filled(1.0))
    clock.now += 3600
    tick(bench.services)
    tick(bench.services)
    assert not any(bench.services.settings.uploads.iterdir())
    assert "no longer open" in bench.receipt(bench.announce(task, notice)).reason


def test_bytes_from_elsewhere_than_the_offset_are_not_taken(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(filled(1.0))
    state = bench.announce(task, bench.notice(task, payload))
    transfer = uploads.open_transfer(bench.services, "anna", state.upload_id)
    assert transfer is not None
    with pytest.raises(StateError, match="stands at byte 0"):
        uploads.append(bench.services, state.upload_id, transfer, 10, payload[10:])


def test_announcing_and_asking_again_give_the_same_receipt(bench: Bench, task: RoundTask) -> None:
    payload = encode_weights(filled(1.0))
    notice = bench.notice(task, payload)
    first = bench.send(task, notice, payload)
    assert bench.announce(task, notice) == first
    assert uploads.look_up(bench.services, "anna", first.upload_id) == first


def test_a_second_different_update_is_refused_and_the_first_stands(bench: Bench, task: RoundTask) -> None:
    assert bench.receipt(bench.update(task, filled(1.0))).accepted
    second = bench.receipt(bench.update(task, filled(2.0)))
    assert not second.accepted
    assert "Another update" in second.reason
    with bench.services.reading() as session:
        (update,) = round_stores.updates_of_round(session, bench.study.digest, 1)
        assert update.norm == pytest.approx(np.sqrt(5))


def test_version_zero_must_be_what_its_site_announced(bench: Bench) -> None:
    bench.start(study_of())
    (task,) = bench.tasks(TaskKind.INITIALISE)
    payload = encode_weights(ODD)
    receipt = bench.receipt(bench.send(task, bench.notice(task, payload), payload))
    assert "names and shapes" in receipt.reason
    assert [waiting.site for waiting in bench.tasks(TaskKind.INITIALISE)] == ["bela"]


def test_a_refusal_can_be_said_twice_and_not_after_an_answer(bench: Bench, task: RoundTask) -> None:
    assert bench.refuse(task).accepted
    assert bench.refuse(task).accepted
    other = bench.tasks(TaskKind.TRAIN)[0]
    bench.update(other, filled(1.0))
    assert not bench.refuse(other).accepted


def test_reports_are_checked_against_their_task(bench: Bench, task: RoundTask) -> None:
    for waiting in bench.tasks(TaskKind.TRAIN):
        bench.update(waiting, filled(1.0))
    bench.close()
    anna, bela, clara = bench.tasks(TaskKind.EVALUATE)
    assert task.base is not None
    assert "version" in bench.report(anna, [0.9], [0.1], version=task.base).reason
    assert "noise" in bench.report(bela, [0.9], [0.1], noise_epsilon=1.0).reason
    assert bench.report(clara, [0.9], [0.1]).accepted
    assert bench.report(clara, [0.9], [0.1]).accepted
    assert not bench.report(clara, [0.9], [0.2]).accepted
    assert bench.round(1)["state"] == "complete"
    assert [site["evaluate_state"] for site in bench.round(1)["sites"]] == ["refused", "refused", "accepted"]


def test_hub_messages_are_not_taken_from_a_site(bench: Bench, task: RoundTask) -> None:
    anna = bench.hospital("anna")
    with pytest.raises(HubError):
        messages.receive(bench.services, "anna", anna.signed(task))
