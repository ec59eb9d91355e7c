"""Factors of the sites' learning rates in the hub's rounds: from approvals and updates into the next tasks."""

from typing import Any

import pytest

from hub.errors import ChargeMissingError
from hub.rounds.rate_factors import parts_of
from hub.rounds.rate_memory import rates_of_versions
from hub.studies import coordinator as studies
from protocol.messages import LedgerCharge, RoundTask, TaskKind
from protocol.site_rates import QualityFigures
from tests.hub.rounds.bench import Bench, filled, study_of

QUALITY = {"adapt": "quality", "quality_epsilon": 1000.0}
EVEN = QualityFigures(positive=5, unreadable=0, repeated=0, noise_epsilon=1000.0)
POOR = QualityFigures(positive=15, unreadable=24, repeated=0, noise_epsilon=1000.0)


def factors(tasks: list[RoundTask]) -> dict[str, float | None]:
    return {task.site: task.rate_factor for task in tasks}


def after_a_round(bench: Bench, *values: float) -> list[RoundTask]:
    bench.train_all(*values)
    bench.close()
    bench.report_all()
    return bench.tasks(TaskKind.TRAIN)


def test_a_site_that_pulls_against_the_others_is_asked_to_take_smaller_steps(bench: Bench) -> None:
    study = study_of(site_rates={"adapt": "updates"}, strategy={"weighting": "equal"}, rounds=3)
    bench.begin(study)
    assert set(factors(bench.tasks(TaskKind.TRAIN)).values()) == {None}
    second = after_a_round(bench, 1.0, 1.0, -1.0)
    # Each of the first two finds the others' mean at zero; the third is opposed to both: values 1, 1 and 2^-1.
    assert list(factors(second).values()) == [1.2, 1.2, 0.6]
    third = after_a_round(bench, 1.0, 1.0, -1.0)
    shown = {site["site"]: site for site in bench.round(2)["sites"]}
    names = [task.site for task in third]
    assert [shown[name]["rate_factor"] for name in names] == [1.2, 1.2, 0.6]
    assert shown[names[2]]["rate_parts"]["agreement"] == -1.0
    assert shown[names[2]]["rate_parts"]["trend"] == 1.0  # it goes on where it went
    # Values: sqrt(1) x 2^1 twice, and sqrt(0.5) x 2^0 = 0.7071, whose 0.45 is cut to the bound
    assert factors(third) == {names[0]: 1.25, names[1]: 1.25, names[2]: 0.5}


def test_a_slow_hospital_of_buffered_rounds_takes_steps_as_large_as_the_others(bench: Bench) -> None:
    study = study_of(
        site_rates={"adapt": "updates"},
        strategy={"weighting": "equal"},
        pace={"mode": "buffered", "buffer": 2},
        rounds=5,
    )
    bench.begin(study)
    for counted in (("anna", "bela"), ("anna", "bela"), ("anna", "clara"), ("bela", "clara")):
        for name in counted:
            (task,) = [task for task in bench.tasks(TaskKind.TRAIN) if task.site == name]
            bench.update(task, filled(1.0))
        bench.close()
        bench.report_all()
    # All agree and go on. Clara was in two versions of four, bela not in the third.
    assert factors(bench.tasks(TaskKind.TRAIN)) == {"anna": 1.0, "bela": 1.0, "clara": 1.0}
    with bench.services.reading() as session:
        last = rates_of_versions(session, study, study.digest)[4]
    assert parts_of("clara", last) == {"updates": 1.0, "agreement": 1.0, "trend": 1.0}
    assert parts_of("bela", last) == {"updates": 1.0, "agreement": 1.0}


def test_data_of_poor_quality_count_from_the_first_round_on(bench: Bench) -> None:
    study = study_of(site_rates={**QUALITY, "from_round": 1}, privacy={"epsilon": None})
    bench.study = study
    studies.propose(bench.services, study, [], "researcher")
    for hospital, (patients, figures) in zip(bench.hospitals, ((10, EVEN), (30, POOR), (10, EVEN)), strict=True):
        assert bench.say(hospital, hospital.charge(study)).accepted
        assert bench.say(hospital, hospital.approval(study.digest, patients=patients, quality=figures)).accepted
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, filled(0.0))
    bench.report_all()
    first = list(factors(bench.tasks(TaskKind.TRAIN)).values())
    # 24 of 30 patients have something unreadable: 0.2003^(1/3) = 0.5851; 50 / (10 + 30 x 0.5851 + 10) = 1.3315
    assert first == [1.3315, 0.779, 1.3315]
    assert {site["site"]: site["quality"] for site in bench.view()["sites"]}[bench.hospitals[1].name] == {
        "positive": 15, "unreadable": 24, "repeated": 0, "noise_epsilon": 1000.0,
    }  # fmt: skip


def test_quality_figures_need_their_charge_also_where_training_is_not_private(bench: Bench) -> None:
    study = study_of(site_rates=QUALITY, privacy={"epsilon": None})
    studies.propose(bench.services, study, [], "researcher")
    hospital = bench.hospitals[0]
    charge = hospital.charge(study)
    approval = hospital.approval(study.digest, patients=10, quality=EVEN)
    with pytest.raises(ChargeMissingError):
        bench.say(hospital, approval)
    assert "not those that the study plans" in bench.say(hospital, with_less_noise(charge)).reason
    assert bench.say(hospital, charge).accepted
    assert bench.say(hospital, approval).accepted


def with_less_noise(charge: LedgerCharge) -> LedgerCharge:
    (event,) = charge.charged["training"]
    return charge.model_copy(update={"charged": {"training": [event.model_copy(update={"noise_multiplier": 0.1})]}})


@pytest.mark.parametrize(
    ("site_rates", "quality"),
    [
        ({}, EVEN),
        (QUALITY, None),
        (QUALITY, EVEN.model_copy(update={"positive": 11})),
        (QUALITY, EVEN.model_copy(update={"noise_epsilon": 1.0})),
    ],
    ids=["not asked for", "missing", "more than there are", "noised otherwise"],
)
def test_an_approval_tells_the_figures_that_the_study_reads_and_no_others(
    bench: Bench, site_rates: dict[str, Any], quality: QualityFigures | None
) -> None:
    study = study_of(site_rates=site_rates, privacy={"epsilon": None})
    studies.propose(bench.services, study, [], "researcher")
    hospital = bench.hospitals[0]
    receipt = bench.say(hospital, hospital.approval(study.digest, patients=10, quality=quality))
    assert not receipt.accepted
    assert "quality figures" in receipt.reason
