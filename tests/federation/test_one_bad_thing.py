"""One bad thing is one bad thing: a site fails for itself, with a reason that people can read; the round goes on."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compose.simulated_hub import SimulatedHub
from protocol.messages import Reason
from site_node.errors import HubRefusedError
from site_node.governance.gate import Gate
from site_node.governance.reasons import SENTENCES, sentence_of
from site_node.orders import read_order
from site_node.settings import SiteSettings
from tests.federation.masked_federation import masked_federation
from tests.federation.three_hospitals import NAMES, ThreeHospitals, Work, run

DAY = 86_400.0


def failing_in_training(fault: Callable[[Any], Any]) -> Work:
    """Return a worker whose training does this in the first round."""

    def work(settings: SiteSettings, task_id: str) -> None:
        order = read_order(settings.paths, task_id)
        if order is None or order.kind != "train" or order.round != 1:
            run(settings, task_id)
            return
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("site_node.training.round_output.train_locally", fault)
            run(settings, task_id)

    return work


def raising(error: Exception) -> Callable[[Any], Any]:
    def fault(_: Any) -> Any:
        raise error

    return fault


def not_a_number(training: Any) -> Any:
    return {name: array * float("nan") for name, array in training.base.items()}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (not_a_number, Reason.NOT_FINITE),
        (raising(MemoryError()), Reason.OUT_OF_MEMORY),
        (raising(torch.OutOfMemoryError("CUDA out of memory")), Reason.OUT_OF_MEMORY),
        (raising(OSError(errno.ENOSPC, "No space left on device")), Reason.DISK_FULL),
        (raising(RuntimeError("patient 4711")), Reason.INTERNAL),
    ],
)
def test_what_goes_wrong_in_one_hospital_s_training_is_read_there_and_at_the_hub_and_the_round_goes_on(
    tmp_path: Path, hub: SimulatedHub, capsys: pytest.CaptureFixture[str], fault: Callable[[Any], Any], reason: Reason
) -> None:
    federation = ThreeHospitals(tmp_path, hub, failing_in_training(fault))
    federation.run()
    assert (federation.view()["state"], federation.view()["final_version"]) == ("completed", 2)
    assert (federation.row(1)["train_state"], federation.row(1)["reason"]) == ("refused", reason.value)
    assert federation.row(2)["train_state"] == "accepted"  # the next round asks it again
    assert {federation.row(1, name)["train_state"] for name in NAMES[1:]} == {"accepted"}
    said = capsys.readouterr().out
    assert f"reason={reason.value}" in said or f"reason=<Reason.{reason.name}" in said
    assert "4711" not in said


def test_a_hospital_without_a_patient_for_the_study_takes_no_part_and_does_not_say_why(
    tmp_path: Path, hub: SimulatedHub
) -> None:
    labels = tmp_path / "anna" / "labels.csv"
    labels.write_text(labels.read_text().splitlines()[0] + "\n")
    federation = ThreeHospitals(tmp_path, hub, run)
    federation.run()
    view = federation.view()
    assert view["state"] == "completed"
    answers = {row["site"]: (row["state"], row["reason"]) for row in view["sites"]}
    assert answers["anna"] == ("refused", Reason.NOT_APPROVED.value)
    assert {answers[name][0] for name in NAMES[1:]} == {"approved"}


def test_an_approval_that_expires_during_a_study_ends_that_hospital_s_part_alone(tmp_path: Path) -> None:
    terms = {"minimum_sites": 3, "quorum": 0.5}
    with masked_federation(
        tmp_path, 4, rounds=2, participants=terms, secure_aggregation={"method": "none"}
    ) as federation:
        federation.propose()
        anna = federation.site("anna")
        while not federation.rounds():
            federation.step()
        anna.gate.close()
        anna.gate = Gate(anna.settings, clock=lambda: time.time() + 400 * DAY)
        federation.rest()
        assert federation.state() == ("completed", "")
        refused = [(r["train_state"], r["reason"]) for n in (1, 2) for r in federation.rounds()[n]["sites"][:1]]
        assert refused == [("refused", "approval-expired")] * 2


def test_a_clock_that_is_a_day_ahead_stops_that_hospital_alone_and_it_comes_back_when_it_is_mended(
    tmp_path: Path,
) -> None:
    terms = {"minimum_sites": 3, "quorum": 0.5, "deadline_seconds": 60.0}
    with masked_federation(
        tmp_path, 4, rounds=3, participants=terms, secure_aggregation={"method": "none"}
    ) as federation:
        federation.propose()
        while not federation.rounds():
            federation.step()
        anna, said = federation.site("anna"), []
        healthy, broken = anna.client._clock, lambda: federation.clock() + DAY
        step = anna.step

        def stumbling() -> int:
            try:
                return step()
            except HubRefusedError as error:  # the agent says it, and tries again with growing pauses
                said.append(error.message)
                return 0

        anna.step = stumbling  # type: ignore[method-assign]
        anna.client._clock = broken
        for _ in range(40):
            federation.step()
            federation.clock.now += 5.0
            if federation.rounds()[-1]["number"] == 2:
                break
        assert "86400 seconds ahead of the hub's" in said[-1]
        first = federation.rounds()[1]
        assert first["state"] == "complete"
        assert [row["train_state"] for row in first["sites"]][1:] == ["accepted"] * 3
        anna.client._clock = healthy
        anna.client._token_ends_at = 0.0
        for _ in range(60):
            federation.step()
            federation.clock.now += 5.0
        assert federation.state() == ("completed", "")
        assert federation.rounds()[3]["sites"][0]["train_state"] == "accepted"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_its_sentence_and_its_remedy_for_the_administrator(reason: Reason) -> None:
    what, remedy = SENTENCES[reason]
    assert what
    assert remedy
    assert sentence_of(reason) == f"{what} {remedy}"
