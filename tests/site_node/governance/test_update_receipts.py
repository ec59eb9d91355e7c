"""The receipt that the gate writes for an update, and the worker's numbers that it does not let pass."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Reason, TaskRefusal, UpdateNotice
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


def answered(site: GatedSite, study: StudySpec, used: NoisedUse | None) -> Any:
    site.join(study)
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
    site.join(study)
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


def what_leaves(site: GatedSite, study: StudySpec) -> str:
    site.join(study)
    with closing(open_records(site.paths)) as database:
        return "\n".join(lines_of(summary_of(database, site.record(study), load_policy(site.settings.policy))))


def test_who_approves_reads_what_the_receipts_tell_and_that_reasons_stay(site: GatedSite) -> None:
    told = what_leaves(site, asking())
    assert "how many patients it could draw, noised here afresh each time (two-sided geometric, scale 2;" in told
    assert "charged to them for all 3 tasks. Why somebody was left out stays here." in told


def test_who_approves_reads_that_no_number_is_asked_for(site: GatedSite) -> None:
    assert "not how many patients were used" in what_leaves(site, asking(receipt_epsilon=None))


def test_receipts_without_private_training_are_named_as_what_is_charged(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\n")
    told = what_leaves(site, asking(epsilon=None, receipt_epsilon=0.5))
    assert "The receipts: epsilon 1.5, charged." in told
