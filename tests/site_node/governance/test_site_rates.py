"""The gate on hospitals' own learning rates: which factors it takes, and how quality figures leave."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Approval, LedgerCharge, Reason, TaskKind, TaskRefusal
from protocol.site_rates import QualityFigures
from protocol.study import StudySpec
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records
from site_node.orders import read_order
from site_node.study_summary import lines_of, summary_of
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


BARE = {"privacy": {"epsilon": None}}


def test_quality_figures_of_a_study_without_private_training_are_noised_and_charged_too(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\n")
    study = study_of(site_rates=QUALITY, **BARE)
    counted(site, study, quality=FIGURES)
    charge, approval = [m for m in site.everything_sent() if isinstance(m, LedgerCharge | Approval)]
    assert isinstance(charge, LedgerCharge)
    assert isinstance(approval, Approval)
    assert charge.unprotected  # for the training
    assert [(e.mechanism, e.noise_multiplier, e.count) for e in charge.charged["training"]] == [
        ("discrete-laplace", 6.0, 3)
    ]
    assert approval.quality == FIGURES


def test_figures_that_no_budget_is_left_for_do_not_leave(tmp_path: Path) -> None:
    limits = "dp_required: false\nlifetime_epsilon: 0.4\nmaximum_epsilon: 0.4\n"
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + limits)
    study = study_of(site_rates={"adapt": "quality", "quality_epsilon": 0.3}, **BARE)
    counted(site, study, quality=FIGURES.model_copy(update={"noise_epsilon": 0.3}))
    second = study_of(name="second", site_rates={"adapt": "quality", "quality_epsilon": 0.3}, **BARE)
    counted(site, second, quality=FIGURES.model_copy(update={"noise_epsilon": 0.3}))
    record = site.record(second)
    assert (record.reason, site.answers(second), len(site.charges())) == (Reason.BUDGET_SPENT, [], 1)
    assert "A smaller site_rates.quality_epsilon" in str(record.detail)


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (
            {"site_rates": {**QUALITY, "least": 0.25}},
            (
                "three figures of the data's quality: how many training patients are positive",
                "have a damaged or missing image",
                "scale 6; epsilon 0.5 for the three",
                "charged to these patients",
                "From these figures the hub sets this hospital's own learning rate",
                "from round 2 on the study's times 0.25 to 2.",
            ),
        ),
        ({"site_rates": {"adapt": "updates"}}, ("From how this hospital's updates lie to the others'", "0.5 to 2.")),
        ({"site_rates": QUALITY, **BARE}, ("Figures of the data's quality: epsilon 0.5, charged.", "scale 6;")),
    ],
    ids=["quality", "updates", "without private training"],
)
def test_who_decides_reads_what_makes_the_rate_and_how_far_it_goes(
    tmp_path: Path, study: dict[str, Any], words: tuple[str, ...]
) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("automatic", "person") + "dp_required: false\n")
    asked = study_of(**study)
    reads_quality = asked.site_rates.reads_quality
    counted(site, asked, quality=FIGURES if reads_quality else None)
    with closing(open_records(site.paths)) as database:
        text = "\n".join(lines_of(summary_of(database, site.record(asked), load_policy(site.settings.policy))))
    assert [said for said in words if said not in text] == []
    assert ("three figures" in text) == reads_quality


def test_a_study_at_one_rate_says_nothing_of_rates(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    with closing(open_records(site.paths)) as database:
        text = str(summary_of(database, site.record(study), load_policy(site.settings.policy)))
    assert "learning rate" not in text


@pytest.mark.parametrize(
    "quality",
    [
        None,
        FIGURES.model_copy(update={"positive": 41}),
        FIGURES.model_copy(update={"noise_epsilon": 5.0}),
    ],
    ids=["none", "more than the patients", "less noise"],
)
def test_figures_other_than_the_study_s_do_not_leave(site: GatedSite, quality: QualityFigures | None) -> None:
    study = study_of(site_rates=QUALITY)
    counted(site, study, quality=quality)
    assert (site.record(study).state, site.record(study).reason, site.sent()) == ("awaiting", Reason.INTERNAL, [])
    assert site.charges() == []


def test_figures_that_nobody_asked_for_do_not_leave(site: GatedSite) -> None:
    counted(site, study_of(), quality=FIGURES)
    assert (site.record(study_of()).reason, site.sent()) == (Reason.INTERNAL, [])


def test_a_hospital_that_does_not_train_tells_no_quality(site: GatedSite) -> None:
    counted(site, study_of(site_rates=QUALITY), training=0)
    (approval,) = [m for m in site.everything_sent() if isinstance(m, Approval)]
    assert (approval.decision, approval.training_patients, approval.quality) == ("approved", 0, None)


@pytest.mark.parametrize(("balance", "weights"), [("stated", None), ("quality", [40 / (2 * 23), 40 / (2 * 17)])])
def test_weights_of_classes_are_made_of_what_was_told_and_stand_in_each_order(
    site: GatedSite, balance: str, weights: list[float] | None
) -> None:
    bounds = {"least": 1, "most": 1} if balance == "quality" else {}  # read for the weights alone
    study = study_of(label={"classes": ["no", "yes"], "balance": balance}, site_rates={**QUALITY, **bounds})
    counted(site, study, training=40, quality=FIGURES)
    for number, factor in ((1, None), (2, 1.0)):
        task = site.give(site.task(study, number, rate_factor=factor))
        order = read_order(site.paths, task.task_id)
        assert order is not None
        assert order.class_weights == (None if weights is None else pytest.approx(weights))
        site.hand_over(task)
        site.sweep()
    judged = site.give(site.task(study, 2, TaskKind.EVALUATE))
    order = read_order(site.paths, judged.task_id)
    assert order is not None
    assert order.class_weights is None


def test_who_decides_reads_where_the_weights_come_from(site: GatedSite) -> None:
    study = study_of(label={"classes": ["no", "yes"], "balance": "quality"}, site_rates=QUALITY)
    counted(site, study, quality=FIGURES)
    with closing(open_records(site.paths)) as database:
        summary = summary_of(database, site.record(study), load_policy(site.settings.policy))
    assert "Weights in the loss by this hospital's noised quality figures." in "\n".join(lines_of(summary))
