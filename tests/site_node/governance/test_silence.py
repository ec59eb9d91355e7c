"""Nothing that depends on a count leaves before a person decides; a researcher chooses criteria and the threshold."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Approval, Progress, Reason
from protocol.study import StudySpec
from site_node.candidate import CohortFigures, write_cohort_figures
from site_node.cohort_members import CohortMembers, read_spent, write_members
from site_node.orders import cohort_task_id, read_order
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, patients_of, study_of

PERSON = "approval: person\nmodalities: any\n"  # all else as in the template
AUTOMATIC = "approval: automatic\nmodalities: any\n"
UNHELD = {"validation": 0.0, "test": 0.0}


def propose(site: GatedSite, name: str, least: int, matching: int, **changes: Any) -> StudySpec:
    """Propose a study with a minimum of its own, and count so many who match, as the worker does."""
    study = study_of(
        name=name,
        cohort={"modality": ["DX"], "minimum_patients": least},
        privacy={"epsilon": changes.pop("epsilon", 0.5), "delta": 1e-4},
        **changes,
    )
    site.propose(study)
    site.sweep()
    order = read_order(site.paths, cohort_task_id(study.digest))
    assert order is not None
    spent = read_spent(site.paths, order.task_id, order.spent_digest)
    left = [who for who in patients_of(0, matching) if not spent.excludes(who, "train")]
    if len(left) >= least:
        site.count_cohort(study, training=matching, held_out=0)
    elif len(left) < matching:
        members = CohortMembers(study_digest=study.digest, withheld=left, spent_training=patients_of(0, matching)[:1])
        digest = write_members(site.paths, members)
        problem = CohortFigures(study_digest=study.digest, problem=Reason.BUDGET_SPENT, members_digest=digest)
        write_cohort_figures(site.paths, problem)
    else:
        too_few = CohortFigures(study_digest=study.digest, problem=Reason.TOO_FEW_PATIENTS)
        write_cohort_figures(site.paths, too_few)
    site.sweep()
    return study


def leaves(site: GatedSite) -> list[str]:
    return [type(message).__name__ for message in site.everything_sent() if not isinstance(message, Progress)]


@pytest.mark.parametrize("policy", [PERSON, AUTOMATIC])
@pytest.mark.parametrize("least", [11, 40, 41, 5000])
@pytest.mark.parametrize("matching", [0, 9, 40])
def test_a_researcher_s_threshold_finds_no_count(tmp_path: Path, policy: str, least: int, matching: int) -> None:
    site = GatedSite.make(tmp_path, policy)
    study = propose(site, "threshold", least, matching)
    assert leaves(site) == []
    assert site.record(study).state == "awaiting"


@pytest.mark.parametrize(
    "problem", [Reason.TOO_FEW_PATIENTS, Reason.LABELS_UNUSABLE, Reason.BUDGET_SPENT, Reason.INTERNAL, Reason.BAD_TASK]
)
@pytest.mark.parametrize("policy", [PERSON, AUTOMATIC, PERMISSIVE_POLICY])
def test_no_problem_of_a_count_is_told_and_a_person_s_refusal_hides_which(
    tmp_path: Path, policy: str, problem: Reason
) -> None:
    site = GatedSite.make(tmp_path, policy)
    study = study_of()
    site.propose(study)
    site.sweep()
    digest = write_members(site.paths, CohortMembers(study_digest=study.digest))
    write_cohort_figures(site.paths, CohortFigures(study_digest=study.digest, problem=problem, members_digest=digest))
    site.sweep()
    assert leaves(site) == []
    site.decide(study, "approved")  # which the command refuses; the gate does so too
    assert leaves(site) == []
    site.decide(study, "refused")
    [answer] = site.answers(study)
    assert answer == Approval(
        site="st-anna", study_digest=study.digest, decision="refused", reason=Reason.NOT_APPROVED, evaluates=False
    )
    assert leaves(site) == ["Approval"]


def test_how_many_budgets_are_spent_is_found_by_no_threshold(tmp_path: Path) -> None:
    """37 of 100 have spent theirs. Whatever minimum is asked for, the answers are the same: none."""
    site = GatedSite.make(tmp_path, PERSON + "composition: sum\nlifetime_epsilon: 10\n")
    first = propose(site, "first", 10, 37, epsilon=8.0)
    site.decide(first, "approved")
    assert [answer.training_patients for answer in site.answers(first)] == [37]
    before = leaves(site)
    for least in (62, 63, 64):
        propose(site, f"at-least-{least}", least, 100, epsilon=8.0, splits=UNHELD)
    assert leaves(site) == before


def test_objections_that_no_patient_makes_are_told_at_once(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study = study_of(privacy={"epsilon": 9.0, "delta": 1e-4})  # above the policy's 8
    site.propose(study)
    site.sweep()
    assert [answer.reason for answer in site.answers(study)] == [Reason.POLICY]


def test_a_policy_that_approves_answers_no_study_with_a_larger_minimum_than_its_own(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, AUTOMATIC)
    silent = propose(site, "minimum-above", 11, 40)
    assert "minimum of training patients above this hospital's 10" in site.record(silent).detail
    answered = propose(site, "minimum-equal", 10, 40)
    assert (site.answers(silent), [a.training_patients for a in site.answers(answered)]) == ([], [40])


def test_an_approval_of_figures_that_changed_in_a_later_count_does_not_stand(tmp_path: Path) -> None:
    """Two studies counted together; the second is counted again with other patients, whom nobody has seen."""
    site = GatedSite.make(tmp_path, PERSON + "lifetime_epsilon: 4.5\n")
    one, other = study_of(name="one"), study_of(name="other")
    for study in (one, other):
        site.propose(study)
        site.sweep()
        site.count_cohort(study, training=40, held_out=0)
        site.sweep()
    site.decide(one, "approved")
    site.decide(other, "approved")
    assert (site.record(other).state, site.record(other).recount) == ("counting", 1)
    site.count_cohort(other, training=70, held_out=0, recount=1)
    site.sweep()
    assert (site.record(other).state, site.answers(other)) == ("awaiting", [])
    site.decide(other, "approved")
    assert [answer.training_patients for answer in site.answers(other)] == [70]


def test_every_exchange_is_the_same_whatever_was_counted(tmp_path: Path) -> None:
    """All that leaves until a person refuses, for hospitals that differ in what their patients are."""
    told = []
    for number, matching in enumerate((0, 9, 25, 400)):
        site = GatedSite.make(tmp_path / str(number), PERSON)
        study = propose(site, "same", 25, matching)
        site.decide(study, "refused")
        told.append([message.canonical_bytes() for message in site.everything_sent()])
    assert all(one == other for one, other in pairwise(told))
