"""Factors of the sites' learning rates in the hub's rounds: from approvals and updates into the next tasks."""

from typing import Any

import pytest

from hub.studies import coordinator as studies
from protocol.messages import RoundTask, TaskKind
from protocol.site_rates import QualityFigures
from tests.hub.rounds.bench import Bench, filled, study_of

EVEN = QualityFigures(positive=5, unreadable=0, repeated=0, noise_epsilon=None)
POOR = QualityFigures(positive=15, unreadable=24, repeated=0, noise_epsilon=None)


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


def test_data_of_poor_quality_count_from_the_first_round_on(bench: Bench) -> None:
    study = study_of(site_rates={"adapt": "quality", "from_round": 1}, privacy={"epsilon": None})
    bench.study = study
    studies.propose(bench.services, study, [], "researcher")
    for hospital, (patients, figures) in zip(bench.hospitals, ((10, EVEN), (30, POOR), (10, EVEN)), strict=True):
        assert bench.say(hospital, hospital.approval(study.digest, patients=patients, quality=figures)).accepted
    (task,) = bench.tasks(TaskKind.INITIALISE)
    bench.update(task, filled(0.0))
    bench.report_all()
    first = list(factors(bench.tasks(TaskKind.TRAIN)).values())
    # 24 of 30 patients have something unreadable: 0.2^(1/3) = 0.5848; 50 / (10 + 30 x 0.5848 + 10) = 1.3318
    assert first == [1.3318, 0.7788, 1.3318]
    assert {site["site"]: site["quality"] for site in bench.view()["sites"]}[bench.hospitals[1].name] == {
        "positive": 15, "unreadable": 24, "repeated": None, "noise_epsilon": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("site_rates", "quality"),
    [
        ({}, EVEN),
        ({"adapt": "quality"}, None),
        ({"adapt": "quality"}, EVEN.model_copy(update={"positive": 11})),
        ({"adapt": "quality"}, EVEN.model_copy(update={"noise_epsilon": 1.0})),
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
