"""The receipt that the gate writes for an update, and the worker's numbers that it does not let pass."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Reason, TaskRefusal, UpdateNotice
from protocol.privacy_accounting import noise_multiplier_of
from protocol.privacy_events import PrivacyEvent
from protocol.round_receipts import RoundReceipt
from protocol.study import StudySpec
from site_node.candidate import NoisedUse
from site_node.governance.policy import Policy, load_policy, objection_to
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records
from site_node.study_summary import lines_of, summary_of
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of

USED = NoisedUse(patients=11, noise_epsilon=0.5)


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, PERMISSIVE_POLICY)


def asking(**privacy: Any) -> StudySpec:
    return study_of(
        privacy={"epsilon": 8.0, "delta": 1e-4, "receipt_epsilon": 0.5} | privacy,
        participants={"minimum_sites": 2, "training_patients": 100},
    )


def joined(site: GatedSite, study: StudySpec, **figures: Any) -> None:
    """Take a study to its approval, by a person where the policy waits for one."""
    site.propose(study)
    site.sweep()
    site.count_cohort(study, **figures)
    site.sweep()
    if site.record(study).state == "awaiting":
        site.decide(study, "approved")


def answered(site: GatedSite, study: StudySpec, used: NoisedUse | None, **figures: Any) -> Any:
    joined(site, study, **figures)
    task = site.give(site.task(study))
    site.hand_over(task, used=used)
    site.sweep()
    return site.sent()[-1]


def test_the_receipt_holds_the_told_figure_the_noised_number_and_the_study_s_steps(site: GatedSite) -> None:
    study = asking()
    notice = answered(site, study, USED)
    assert isinstance(notice, UpdateNotice)
    receipt = notice.receipt
    assert isinstance(receipt, RoundReceipt)
    assert (receipt.patients, receipt.noise_epsilon) == (11, 0.5)
    assert receipt.steps == study.local_steps
    assert receipt.told > 0


def test_a_study_that_asks_for_none_gets_a_receipt_without_a_number(site: GatedSite) -> None:
    notice = answered(site, asking(receipt_epsilon=None), None)
    assert isinstance(notice, UpdateNotice)
    assert notice.receipt is not None
    assert (notice.receipt.patients, notice.receipt.noise_epsilon) == (None, None)


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        (0.5, None),
        (0.5, NoisedUse(patients=11, noise_epsilon=1.0)),
        (0.5, NoisedUse(patients=1000, noise_epsilon=0.5)),
        (0.5, NoisedUse(patients=-100, noise_epsilon=0.5)),
        (None, USED),
    ],
    ids=["missing", "with less noise", "of more than there are", "of fewer than nobody", "not asked for"],
)
def test_a_number_that_is_not_the_study_s_does_not_leave(
    site: GatedSite, asked: float | None, used: NoisedUse | None
) -> None:
    refusal = answered(site, asking(receipt_epsilon=asked), used)
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.INTERNAL


def test_the_receipts_of_all_tasks_are_charged_before_the_first(site: GatedSite) -> None:
    study = asking()
    joined(site, study)
    with closing(open_records(site.paths)) as database:
        charged = [entry.event for entry in ledger_entries(database) if entry.patients == "training"]
    tasks = study.maximum_training_tasks
    assert PrivacyEvent(mechanism="discrete-laplace", noise_multiplier=2.0, count=tasks) in charged


def test_a_policy_bounds_what_receipts_spend_where_training_is_not_private() -> None:
    study = asking(epsilon=None, receipt_epsilon=8.0)
    policy = Policy(dp_required=False, networks="any", modalities="any", maximum_epsilon=8.0)
    objection = objection_to(policy, study, None)
    assert objection is not None
    assert f"{study.maximum_training_tasks} times privacy.receipt_epsilon" in objection.sentence


TIGHT = PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n"  # of one study of epsilon 4, not of a second one
SECOND = {"epsilon": 4.0, "delta": 1e-4, "receipt_epsilon": 0.5}


def second_answer(site: GatedSite, used: NoisedUse, **privacy: Any) -> Any:
    """Return the answer in a study of 40, of whom 15 have spent their budget in one of epsilon 4 before."""
    earlier, study = study_of(name="earlier"), asking(**SECOND | privacy)
    for one, training, first in ((earlier, 15, 0), (study, 40, 0)):
        site.propose(one)
        site.sweep()
        told: dict[str, Any] = {"training_patients": 27, "count_epsilon": 0.5} if one.privacy.count_epsilon else {}
        members = site.count_cohort(one, training=training, first=first, **told)
        assert len(members.training) == (15 if one is earlier else 25)
        site.sweep()
        if site.record(one).state == "awaiting":
            site.decide(one, "approved")
    site.hand_over(site.give(site.task(study)), used=used)
    site.sweep()
    return site.sent()[-1]


def test_spent_budgets_are_not_told_where_the_told_number_counts_their_patients_too(tmp_path: Path) -> None:
    """The worker's 23, noised, are of 25 who train: of the 40 told it is 15 more, as if nobody had spent anything."""
    notice = second_answer(GatedSite.make(tmp_path, TIGHT), NoisedUse(patients=23, noise_epsilon=0.5))
    assert (notice.receipt.told, notice.receipt.patients) == (40, 38)


def test_beside_a_noised_told_number_the_receipt_counts_those_alone_who_are_charged(tmp_path: Path) -> None:
    used = NoisedUse(patients=23, noise_epsilon=0.5)
    notice = second_answer(GatedSite.make(tmp_path, TIGHT), used, count_epsilon=0.5)
    assert (notice.receipt.told, notice.receipt.patients) == (27, 23)


def test_a_number_that_those_who_train_cannot_have_does_not_leave_though_more_were_told(tmp_path: Path) -> None:
    """Draws end at 44.4 scales of 2: of the 25 who train no more than 114 can be told, of 40 it would be 129."""
    refusal = second_answer(GatedSite.make(tmp_path, TIGHT), NoisedUse(patients=116, noise_epsilon=0.5))
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.INTERNAL


@pytest.mark.parametrize(("training", "first"), [(40, 0), (40, 500), (0, 0)])
def test_an_automatic_policy_leaves_receipts_to_a_person_whatever_was_counted(
    site: GatedSite, training: int, first: int
) -> None:
    study = asking()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training=training, first=first)
    site.sweep()
    site.sweep()
    record = site.record(study)
    assert (record.state, site.answers(study), site.charges()) == ("awaiting", [], [])
    assert "how many of its patients have opted out" in record.detail
    site.decide(study, "approved")
    assert site.record(study).state == "approved"


MANY = {"count_epsilon": 0.1, "receipt_epsilon": 0.35}


@pytest.mark.parametrize(
    ("maximum", "privacy", "said"),
    [
        (0.1, MANY, "privacy.count_epsilon 0.1 and 10 times privacy.receipt_epsilon 0.35 = 3.5 are above"),
        (0.1, MANY | {"epsilon": None}, "privacy.count_epsilon 0.1 and 10 times privacy.receipt_epsilon 0.35 = 3.5"),
        (3.6, MANY, None),
        (3.59, MANY, "are above `maximum_count_epsilon` 3.59."),
        (0.1, {"count_epsilon": 0.1, "receipt_epsilon": None}, None),
        (None, MANY, None),
    ],
)
def test_receipts_count_against_the_policy_s_noise_of_the_number(
    maximum: float | None, privacy: dict[str, Any], said: str | None
) -> None:
    study = study_of(
        rounds=10,
        privacy={"epsilon": 8.0, "delta": 1e-4} | privacy,
        participants={"minimum_sites": 2, "training_patients": 100},
    )
    policy = Policy(dp_required=False, networks="any", maximum_count_epsilon=maximum)
    objection = objection_to(policy, study, noise_multiplier_of(study))
    assert (objection is None) == (said is None)
    assert said is None or (objection is not None and said in objection.sentence)


def what_leaves(site: GatedSite, study: StudySpec) -> str:
    site.join(study)
    with closing(open_records(site.paths)) as database:
        return "\n".join(lines_of(summary_of(database, site.record(study), load_policy(site.settings.policy))))


def test_who_approves_reads_what_the_receipts_tell_and_what_they_do_not(site: GatedSite) -> None:
    told = what_leaves(site, asking())
    assert "how many of these patients have not opted out since, noised here afresh each time" in told
    assert "charged to them for all 3 tasks. How many budgets are spent does not change it." in told


def test_who_approves_reads_that_no_number_is_asked_for(site: GatedSite) -> None:
    assert "not how many patients were used" in what_leaves(site, asking(receipt_epsilon=None))


def test_receipts_without_private_training_are_named_as_what_is_charged(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\n")
    told = what_leaves(site, asking(epsilon=None, receipt_epsilon=0.5))
    assert "The receipts: epsilon 1.5, charged." in told
