"""Updates by lossy steps at the hub: opened on the way into the store, resumed, and refused as whole ones are."""

from collections.abc import Callable

import numpy as np
import pytest
import zstandard

from hub.rounds.transfers import TRANSFERS
from protocol.compression.coding import CodingTerms, decoded, encoded
from protocol.compression.terms import upload_terms
from protocol.manifest import manifest_of
from protocol.messages import RoundTask, TaskKind
from protocol.tensors import encode_weights, flatten, unflatten
from tests.hub.rounds.bench import ZERO, Bench, assert_equal, filled, study_of, weights_of

STEPS = ["difference", "top-k", "quantise", "zstandard"]
MOVED = weights_of(1.0, -2.0, 0.5, 0.25, 3.0)


@pytest.fixture
def task(bench: Bench) -> RoundTask:
    bench.begin(study_of(transport={"upload": ["top-k:0.4", "quantise:8", "zstandard"]}))
    return bench.tasks(TaskKind.TRAIN)[0]


def terms_of(bench: Bench, number: int = 1) -> CodingTerms:
    return upload_terms(bench.study, manifest_of(ZERO), number)


def coded(bench: Bench) -> bytes:
    return b"".join(encoded([flatten(MOVED, manifest_of(ZERO))], terms_of(bench)))


def test_the_version_is_made_of_what_the_updates_stand_for(bench: Bench, task: RoundTask) -> None:
    payload = zstandard.compress(coded(bench))
    for waiting in bench.tasks(TaskKind.TRAIN):
        state = bench.send(waiting, bench.notice(waiting, payload, steps=STEPS), payload)
        assert bench.receipt(state).accepted, bench.receipt(state).reason
    bench.close()
    assert_equal(bench.weights(1), unflatten(decoded(coded(bench), terms_of(bench)), manifest_of(ZERO)))
    assert np.count_nonzero(flatten(bench.weights(1), manifest_of(ZERO))) == 2


def test_a_cut_off_transfer_goes_on_at_its_last_byte_after_the_hub_was_killed(bench: Bench, task: RoundTask) -> None:
    payload = zstandard.compress(coded(bench))
    notice = bench.notice(task, payload, steps=STEPS)
    state = bench.announce(task, notice)
    for piece in (3, 4, 5):  # in the frame's header, between the places and a scale
        state = bench.send_piece(task, state, payload, piece)
        TRANSFERS.drop(bench.services.settings.uploads, state.upload_id)
    assert (bench.announce(task, notice).offset, state.receipt) == (12, None)
    assert bench.receipt(bench.send(task, notice, payload, piece=1)).accepted


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda good: good[:-1], "cut off"),
    "longer": (lambda good: good + b"\0", "goes on after its last value"),
    "too many places": (lambda good: b"\xff" + good[1:], "another number"),
    "a level that is none": (lambda good: good[:-1] + b"\xff", "level"),
    "a scale that is no number": (lambda good: good[:1] + np.float32(np.nan).tobytes() + good[5:], "not finite"),
    "far too large": (lambda good: good[:1] + np.float32(1e30).tobytes() + good[5:], "norm is above"),
    "a whole weights file": (lambda _: encode_weights(filled(1.0)), "not coded as the study says"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_steps_do_not_make_is_refused_with_the_reason(bench: Bench, task: RoundTask, name: str) -> None:
    change, reason = BAD[name]
    payload = zstandard.compress(change(coded(bench)))
    receipt = bench.receipt(bench.send(task, bench.notice(task, payload, steps=STEPS), payload))
    assert not receipt.accepted
    assert reason in receipt.reason
    assert bench.tasks(TaskKind.TRAIN)[0].site != task.site


@pytest.mark.parametrize("steps", [["difference", "zstandard"], ["difference"], ["difference", "top-k", "zstandard"]])
def test_other_steps_than_the_study_s_are_refused(bench: Bench, task: RoundTask, steps: list[str]) -> None:
    payload = zstandard.compress(coded(bench))
    receipt = bench.receipt(bench.send(task, bench.notice(task, payload, steps=steps), payload))
    assert not receipt.accepted
    assert "steps" in receipt.reason
