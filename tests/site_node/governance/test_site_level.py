"""The gate on a study of site-level privacy: which lengths it takes from the hub, and what a candidate must say."""

import math
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Reason, RoundTask, TaskKind, TaskRefusal, UpdateNotice
from protocol.privacy_accounting import epsilon_of, noise_multiplier_of, training_event
from protocol.study import StudySpec
from site_node.governance.policy import Policy, objection_to
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of

LONGER = math.exp(0.2 * 0.5)


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_units: [patient, site]\n")


def site_level(**privacy: Any) -> StudySpec:
    terms = {"unit": "site", "mechanism": "site-level", "epsilon": 8.0, "delta": 1e-4, "update_norm": 0.25}
    return study_of(
        privacy=terms | privacy,
        strategy={"weighting": "equal"},
        participants={"minimum_sites": 10, "training_patients": 100},
    )


def refusal_of(site: GatedSite, task: RoundTask) -> Reason | None:
    site.give(task)
    return {m.task_id: m.reason for m in site.sent() if isinstance(m, TaskRefusal)}.get(task.task_id)


@pytest.mark.parametrize(
    ("number", "norm", "taken"),
    [(1, 0.25, True), (1, 0.26, False), (1, None, False), (2, 0.25 * LONGER, True), (2, 0.25 * LONGER**2, False)],
)
def test_only_a_length_that_the_study_s_rule_can_give_is_taken(
    site: GatedSite, number: int, norm: float | None, taken: bool
) -> None:
    study = site_level()
    site.join(study)
    assert (refusal_of(site, site.task(study, number, update_norm=norm)) is None) == taken


def test_a_study_of_another_mechanism_takes_no_length(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    assert refusal_of(site, site.task(study, update_norm=1.0)) is Reason.BAD_TASK


def test_an_evaluation_takes_no_length(site: GatedSite) -> None:
    study = site_level()
    site.join(study)
    assert refusal_of(site, site.task(study, 1, TaskKind.EVALUATE, update_norm=0.25)) is Reason.BAD_TASK


def test_the_worker_is_told_the_length_and_the_notice_carries_the_noised_bit_and_the_charge(site: GatedSite) -> None:
    study = site_level()
    site.join(study)
    task = site.give(site.task(study, update_norm=0.25))
    assert '"update_norm":0.25' in (site.paths.orders / f"{task.task_id}.json").read_text()
    site.hand_over(task, uncut=1.75)
    site.sweep()
    notice = site.sent()[-1]
    assert isinstance(notice, UpdateNotice)
    assert notice.uncut == 1.75
    assert notice.weight == 1.0
    assert notice.privacy is not None
    once = training_event(study, noise_multiplier_of(study) or 0.0, 1)
    assert notice.privacy.epsilon == epsilon_of([once], study.privacy.delta)


@pytest.mark.parametrize(("rate", "uncut"), [(0.2, None), (0.0, 1.0)])
def test_a_bit_that_is_missing_or_was_not_asked_for_does_not_leave(
    site: GatedSite, rate: float, uncut: float | None
) -> None:
    study = site_level(update_norm_rate=rate)
    site.join(study)
    task = site.give(site.task(study, update_norm=0.25))
    site.hand_over(task, uncut=uncut)
    site.sweep()
    assert isinstance(site.sent()[-1], TaskRefusal)


def test_a_hospital_that_demands_privacy_of_patients_refuses_that_of_sites_unless_its_policy_names_it() -> None:
    study = site_level()
    noise = noise_multiplier_of(study)
    objection = objection_to(Policy(), study, noise)
    assert objection is not None
    assert "`dp_units`" in objection.sentence
    assert objection_to(Policy(dp_units=["patient", "site"]), study, noise) is None
    assert objection_to(Policy(dp_required=False), study, noise) is None
