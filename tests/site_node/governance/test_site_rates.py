"""The gate on hospitals' own learning rates: which factors it takes, and how quality figures leave."""

from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Approval, LedgerCharge, Reason, TaskKind, TaskRefusal
from protocol.site_rates import QualityFigures
from protocol.study import StudySpec
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of

FIGURES = QualityFigures(positive=17, unreadable=3, repeated=0, noise_epsilon=0.5)
QUALITY = {"adapt": "quality", "quality_epsilon": 0.5}


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, PERMISSIVE_POLICY)


def counted(site: GatedSite, study: StudySpec, **more: Any) -> None:
    site.propose(study)
    site.sweep()
    site.count_cohort(study, **more)
    site.sweep()


def refusal_of(site: GatedSite, study: StudySpec, number: int, factor: float | None) -> Reason | None:
    task = site.give(site.task(study, number, rate_factor=factor))
    return {m.task_id: m.reason for m in site.sent() if isinstance(m, TaskRefusal)}.get(task.task_id)


def test_a_factor_within_the_bounds_is_taken_and_told_to_the_worker(site: GatedSite) -> None:
    study = study_of(site_rates={"adapt": "updates"})
    site.join(study)
    assert refusal_of(site, study, 1, None) is None
    assert refusal_of(site, study, 2, 0.75) is None
    assert '"rate_factor":0.75' in (site.paths.orders / "tiny-2-train.json").read_text()


@pytest.mark.parametrize(
    ("number", "factor"),
    [(2, 0.4), (2, 2.5), (2, None), (1, 1.0)],
    ids=["too small", "too large", "none where one is due", "one before its round"],
)
def test_a_factor_out_of_the_study_s_terms_is_refused(site: GatedSite, number: int, factor: float | None) -> None:
    study = study_of(site_rates={"adapt": "updates"})
    site.join(study)
    assert refusal_of(site, study, number, factor) is Reason.BAD_TASK


def test_a_study_that_does_not_adapt_takes_no_factor(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    assert refusal_of(site, study, 2, 1.0) is Reason.BAD_TASK


def test_an_evaluation_takes_no_factor(site: GatedSite) -> None:
    study = study_of(site_rates={"adapt": "updates"})
    site.join(study)
    task = site.give(site.task(study, 2, TaskKind.EVALUATE, rate_factor=1.0))
    refused = {m.task_id: m.reason for m in site.sent() if isinstance(m, TaskRefusal)}
    assert refused[task.task_id] is Reason.BAD_TASK


def test_quality_figures_are_charged_and_leave_with_the_approval(site: GatedSite) -> None:
    counted(site, study_of(site_rates=QUALITY), quality=FIGURES)
    told = [m for m in site.everything_sent() if isinstance(m, LedgerCharge | Approval)]
    charge, approval = told
    assert isinstance(charge, LedgerCharge)  # before what it is for
    assert isinstance(approval, Approval)
    assert approval.quality == FIGURES
    laplace = [event for event in charge.charged["training"] if event.mechanism == "discrete-laplace"]
    assert [(event.noise_multiplier, event.count) for event in laplace] == [(6.0, 3)]


@pytest.mark.parametrize(
    "quality",
    [
        None,
        FIGURES.model_copy(update={"positive": 41}),
        FIGURES.model_copy(update={"noise_epsilon": None}),
        FIGURES.model_copy(update={"noise_epsilon": 5.0}),
    ],
    ids=["none", "more than the patients", "not noised", "less noise"],
)
def test_figures_other_than_the_study_s_do_not_leave(site: GatedSite, quality: QualityFigures | None) -> None:
    counted(site, study_of(site_rates=QUALITY), quality=quality)
    (approval,) = [m for m in site.everything_sent() if isinstance(m, Approval)]
    assert (approval.decision, approval.reason, approval.quality) == ("refused", Reason.INTERNAL, None)
    assert site.charges() == []


def test_figures_that_nobody_asked_for_do_not_leave(site: GatedSite) -> None:
    counted(site, study_of(), quality=FIGURES)
    (approval,) = [m for m in site.everything_sent() if isinstance(m, Approval)]
    assert approval.decision == "refused"
    assert approval.quality is None


def test_a_hospital_that_does_not_train_tells_no_quality(site: GatedSite) -> None:
    counted(site, study_of(site_rates=QUALITY), training=0)
    (approval,) = [m for m in site.everything_sent() if isinstance(m, Approval)]
    assert (approval.decision, approval.training_patients, approval.quality) == ("approved", 0, None)
