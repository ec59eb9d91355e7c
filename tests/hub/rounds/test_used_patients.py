"""What the hub shows of receipts: the noised number, its interval, and loudly where a round was made of a fraction."""

from typing import Any

import pytest

from hub.registry.lineage import read_lineage
from hub.storage import stores
from protocol.messages import RoundTask, TaskKind
from protocol.round_receipts import RoundReceipt
from protocol.study import StudySpec
from tests.hub.rounds.bench import Bench, filled, study_of

pytestmark = pytest.mark.both_databases
PATIENTS = (100, 100, 60)


def asking(**privacy: Any) -> StudySpec:
    return study_of(
        privacy={"epsilon": 8.0, "delta": 1e-4, "receipt_epsilon": 1.0} | privacy,
        participants={"minimum_sites": 2, "training_patients": 260},
    )


def receipt(bench: Bench, told: int, patients: int | None) -> RoundReceipt:
    epsilon, steps = bench.study.privacy.receipt_epsilon, bench.study.local_steps
    return RoundReceipt(told=told, patients=patients, noise_epsilon=epsilon, steps=steps, software="1.0.0")


def answer(bench: Bench, task: RoundTask, told: int, patients: int | None) -> str:
    update = filled(0.01)
    payload = bench.packed(update)
    notice = bench.notice(task, payload, update, receipt=receipt(bench, told, patients))
    bench.send(task, notice, payload)
    row = next(row for row in bench.rounds()[-1]["sites"] if row["site"] == task.site)
    return str(row["reason"])


def trained(bench: Bench, *used: int | None) -> None:
    """Answer a round's three tasks with receipts of these numbers."""
    for task, told, patients in zip(bench.tasks(TaskKind.TRAIN), PATIENTS, used, strict=True):
        answer(bench, task, told, patients)
    bench.close()


def test_a_round_shows_each_receipt_with_its_interval_and_says_loudly_who_trained_on_a_fraction(bench: Bench) -> None:
    """At epsilon 1 the noise is at most 4, 99 times of 100: of 100 told, 60 are at most 64."""
    bench.begin(asking(), PATIENTS)
    trained(bench, 97, 60, 58)
    shown = {row["site"]: row["receipt"] for row in bench.rounds()[1]["sites"]}
    names = [hospital.name for hospital in bench.hospitals]
    whole, fraction = shown[names[0]], shown[names[1]]
    assert {key: whole[key] for key in ("told", "patients", "low", "high", "short")} == {
        **{"told": 100, "patients": 97, "low": 93, "high": 101},
        "short": False,
    }
    assert (fraction["high"], fraction["short"]) == (64, True)
    (warning,) = bench.rounds()[1]["warnings"]
    assert warning.startswith(f"{names[1]} trained this round on a fraction")
    assert "at most 64 of 100" in warning
    assert bench.rounds()[0]["warnings"] == []


def test_the_version_s_signed_lineage_names_who_trained_on_a_fraction(bench: Bench) -> None:
    bench.begin(asking(), PATIENTS)
    trained(bench, 97, 60, 58)
    with bench.services.reading() as session:
        lineage = read_lineage(stores.newest_version(session, bench.study.digest).lineage)
    said = [(part["used"]["patients"], part["used"]["short"]) for part in lineage["participants"]]
    assert said == [(97, False), (60, True), (58, False)]


def test_the_lineage_has_no_number_of_a_receipt_that_is_not_noised_or_planned(bench: Bench) -> None:
    """Pages hide a told number below five; the lineage is exported as it is, and under masks its weights are 1."""
    bench.begin(asking(), PATIENTS)
    trained(bench, 97, 60, 58)
    with bench.services.reading() as session:
        lineage = read_lineage(stores.newest_version(session, bench.study.digest).lineage)
    assert {frozenset(part["used"]) for part in lineage["participants"]} == {
        frozenset({"patients", "noise_epsilon", "steps", "software", "short"})
    }


def test_a_study_that_asks_for_no_number_shows_that_and_warns_of_nothing(bench: Bench) -> None:
    bench.begin(asking(receipt_epsilon=None), PATIENTS)
    trained(bench, None, None, None)
    (first, *_), warnings = bench.rounds()[1]["sites"], bench.rounds()[1]["warnings"]
    assert (first["receipt"]["patients"], first["receipt"]["told"], warnings) == (None, 100, [])


def test_an_update_of_an_older_release_without_a_receipt_counts_where_no_number_is_asked_for(bench: Bench) -> None:
    bench.begin(asking(receipt_epsilon=None), PATIENTS)
    for task in bench.tasks(TaskKind.TRAIN):
        bench.update(task, filled(0.01))
    bench.close()
    assert [row["receipt"] for row in bench.rounds()[1]["sites"]] == [None, None, None]
    with bench.services.reading() as session:
        lineage = read_lineage(stores.newest_version(session, bench.study.digest).lineage)
    assert all("used" not in part for part in lineage["participants"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (None, "is missing"),
        ({"noise_epsilon": 2.0}, "is not noised as the study says"),
        ({"patients": None}, "is not noised as the study says"),
        ({"told": 99}, "names another number of training patients"),
        ({"steps": 999}, "names other steps"),
    ],
)
def test_an_update_whose_receipt_does_not_fit_the_study_is_refused(
    bench: Bench, change: dict[str, Any] | None, why: str
) -> None:
    bench.begin(asking(), PATIENTS)
    task, update = bench.tasks(TaskKind.TRAIN)[0], filled(0.01)
    payload = bench.packed(update)
    own = None if change is None else receipt(bench, 100, 97).model_copy(update=change)
    bench.send(task, bench.notice(task, payload, update, receipt=own), payload)
    row = next(row for row in bench.rounds()[1]["sites"] if row["site"] == task.site)
    assert (row["train_state"], why in row["reason"]) == ("refused", True)


def test_a_version_that_nobody_trained_has_no_receipt(bench: Bench) -> None:
    bench.start(asking(), PATIENTS)
    (task,) = bench.tasks(TaskKind.INITIALISE)
    update = filled(0.0)
    payload = bench.packed(update)
    bench.send(task, bench.notice(task, payload, update, receipt=receipt(bench, 100, 97)), payload)
    row = next(row for row in bench.rounds()[0]["sites"] if row["site"] == task.site)
    assert row["train_state"] == "refused"
