"""The gate from mail to outbox: what is let in, what is let out, and that a crash anywhere sends nothing twice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.message import Message
from protocol.messages import (
    Approval,
    EvaluationReport,
    Reason,
    StudyClosed,
    TaskCancelled,
    TaskKind,
    TaskRefusal,
    UpdateNotice,
)
from protocol.signing import SigningKey
from protocol.study import StudySpec
from protocol.tensors import encode_weights
from site_node.governance import egress, hash_chain
from site_node.governance.approval import Decision, DecisionWord, record_decision
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records, set_paused
from site_node.orders import cohort_task_id, read_order
from tests.fakes.gated_site import BASE, PERMISSIVE_POLICY, GatedSite, study_of, weights
from tests.fakes.power_cuts import PowerCutError, power_cut


def only(messages: list[Message], kind: type[Message]) -> list[Message]:
    return [message for message in messages if isinstance(message, kind)]


def test_a_study_is_counted_charged_and_approved(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    order = read_order(site.paths, cohort_task_id(study.digest))
    assert order is not None
    assert order.kind == "cohort"
    assert site.verdict(order.task_id) == {"task_id": order.task_id, "verdict": "accept", "reason": None}
    site.count_cohort(study)
    site.sweep()
    [approval] = site.sent()
    assert isinstance(approval, Approval)
    assert (approval.decision, approval.training_patients, approval.evaluates) == ("approved", 40, True)
    assert read_order(site.paths, order.task_id) is None
    trained, judged = ledger_entries(open_records(site.paths))
    assert trained.event is not None
    assert trained.event.count == 3 * 2  # every round's every step, before the first task
    assert (judged.patients, judged.event) == ("held-out", None)  # un-noised: no epsilon is true of it


def test_a_task_becomes_an_order_and_its_candidate_the_one_output(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    order = read_order(site.paths, task.task_id)
    assert order is not None
    assert order.noise_multiplier == task.noise_multiplier
    site.hand_over(task)
    site.sweep()
    notice = site.sent()[-1]
    assert isinstance(notice, UpdateNotice)
    assert notice.weight == 40.0
    assert notice.privacy is not None
    assert 0 < notice.privacy.epsilon < 4.0
    assert read_order(site.paths, task.task_id) is None
    assert site.verdict(task.task_id) is None
    assert list(site.paths.candidates.iterdir()) == []
    [payload] = site.paths.outbox.glob("*.payload")
    assert len(payload.read_bytes()) == notice.payload_bytes


def test_epsilon_grows_with_the_tasks_and_ends_below_the_target(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    for number in (1, 2, 3):
        site.hand_over(site.give(site.task(study, number)))
        site.sweep()
    spent = [m.privacy.epsilon for m in site.sent() if isinstance(m, UpdateNotice) and m.privacy is not None]
    assert spent == sorted(spent)
    assert len(set(spent)) == 3
    assert spent[-1] <= 4.0


def test_an_evaluation_leaves_as_histograms(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study, 1, TaskKind.EVALUATE))
    site.hand_over_scores(task)
    site.sweep()
    report = site.sent()[-1]
    assert isinstance(report, EvaluationReport)
    assert report.noise_epsilon is None


def test_receipts_clear_the_outbox_and_are_kept(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.hand_over(site.give(site.task(study)))
    site.sweep()
    site.receive_all()
    site.sweep()
    assert list(site.paths.outbox.iterdir()) == []
    assert list(site.paths.gate_payloads.iterdir()) == []
    assert list(site.paths.receipts.iterdir()) == []
    assert open_records(site.paths).execute("SELECT COUNT(*) FROM receipts").fetchone()[0] == 3


def test_a_receipt_of_somebody_else_leaves_the_message_in_the_outbox(site: GatedSite) -> None:
    site.join(study_of())
    site.receive_all(key=SigningKey.generate())
    site.sweep()
    assert len(list(site.paths.outbox.glob("*.dsse.json"))) == 2


def test_a_lost_outbox_is_filled_again_with_the_same_bytes(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.hand_over(site.give(site.task(study)))
    site.sweep()
    before = {path.name: path.read_bytes() for path in site.paths.outbox.iterdir()}
    for path in site.paths.outbox.iterdir():
        path.unlink()
    site.start()
    site.sweep()
    assert {path.name: path.read_bytes() for path in site.paths.outbox.iterdir()} == before


STEPS = (
    "mail read",
    "budget preset",
    "cohort read",
    "approval recorded",
    "task decided",
    "candidate read",
    "payload kept",
    "output recorded",
    "orders written",
    "outbox filled",
    "receipt kept",
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("occurrence", [1, 2, 3])
def test_a_crash_between_any_two_steps_never_sends_two_different_outputs(
    site: GatedSite, step: str, occurrence: int
) -> None:
    """The worker even hands over a *different* update after the crash, as one with fresh noise would be."""
    study = study_of()

    def through(action: Callable[[], None]) -> bool:
        try:
            action()
        except PowerCutError:
            site.start()
            action()
            return True
        return False

    site.checkpoint = power_cut(step, occurrence)
    site.propose(study)
    through(site.sweep)
    site.count_cohort(study)
    through(site.sweep)
    task = site.task(study)
    site.post(task)
    through(site.sweep)
    site.hand_over(task)
    try:
        site.sweep()
    except PowerCutError:
        site.start()
        if not (site.paths.candidates / task.task_id).exists():
            site.hand_over(task, encode_weights(weights(0.25)))
        site.sweep()
    site.receive_all()
    through(site.sweep)
    site.sweep()
    approvals, notices = only(site.sent(), Approval), only(site.sent(), UpdateNotice)
    assert len(approvals) == 1
    assert len(notices) == 1
    assert only(site.sent(), TaskRefusal) == []
    assert len(ledger_entries(open_records(site.paths))) == 2
    assert hash_chain.verify(open_records(site.paths), "egress")[0] >= 2


def test_after_the_output_a_second_candidate_is_thrown_away(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    site.sweep()
    site.hand_over(task, encode_weights(weights(0.25)))
    site.sweep()
    assert len(only(site.sent(), UpdateNotice)) == 1
    assert list(site.paths.candidates.iterdir()) == []


def test_a_second_different_task_for_the_same_round_is_refused(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.give(site.task(study))
    site.give(site.task(study, task_id="tiny-1-again", sequence=2))
    [refusal] = only(site.sent(), TaskRefusal)
    assert isinstance(refusal, TaskRefusal)
    assert (refusal.task_id, refusal.reason) == ("tiny-1-again", Reason.ROUND_ALREADY_ANSWERED)


def test_the_same_task_id_with_other_terms_is_ignored(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.give(site.task(study, deadline_seconds=61.0))
    order = read_order(site.paths, task.task_id)
    assert order is not None
    assert order.task_digest == task.digest
    assert only(site.sent(), TaskRefusal) == []


def test_mail_that_the_hub_did_not_sign_is_not_used(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.task(study)
    site.post(task, SigningKey.generate())
    site.sweep()
    assert site.verdict(task.task_id) is None


def test_tasks_beyond_the_approved_number_are_refused(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.give(site.task(study, 4))
    [refusal] = only(site.sent(), TaskRefusal)
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.TOO_MANY_TASKS


def test_noise_below_the_target_is_refused_by_our_own_accounting(site: GatedSite) -> None:
    study = study_of()
    site.propose(study, noise=0.3)
    site.sweep()
    [approval] = site.sent()
    assert isinstance(approval, Approval)
    assert (approval.decision, approval.reason) == ("refused", Reason.BAD_TASK)


def test_a_task_with_less_noise_than_approved_is_refused(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    site.give(site.task(study, noise_multiplier=0.1))
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.BAD_TASK


def test_a_cancelled_task_is_taken_away_and_its_late_candidate_does_not_leave(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.post(TaskCancelled(task_id=task.task_id, study_digest=study.digest))
    site.sweep()
    assert read_order(site.paths, task.task_id) is None
    site.hand_over(task)
    site.sweep()
    assert only(site.sent(), UpdateNotice) == []


def test_a_closed_study_takes_its_orders_along(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.post(StudyClosed(study_digest=study.digest, state="stopped"))
    site.sweep()
    assert read_order(site.paths, task.task_id) is None


def decide_as(site: GatedSite, digest: str, word: str) -> None:
    key = SigningKey.load_or_create(site.paths.identity_key)
    record_decision(open_records(site.paths), Decision(digest, word, "Dr Grey", site.now, None), key)  # type: ignore[arg-type]


def test_a_person_must_approve_where_the_policy_says_so(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nminimum_patients: 1\n")
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    assert site.sent() == []
    assert (site.verdict(task.task_id) or {})["verdict"] == "wait"
    decide_as(site, study.digest, "approved")
    site.sweep()
    assert (site.verdict(task.task_id) or {})["verdict"] == "accept"


@pytest.mark.parametrize(
    ("word", "reason"), [("withdrawn", Reason.APPROVAL_WITHDRAWN), ("refused", Reason.NOT_APPROVED)]
)
def test_withdrawal_takes_effect_at_once(site: GatedSite, word: DecisionWord, reason: Reason) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    decide_as(site, study.digest, word)
    site.sweep()
    approval, refusal = site.sent()[-2:]
    assert isinstance(approval, Approval)
    assert isinstance(refusal, TaskRefusal)
    assert (approval.decision, refusal.reason) == ("withdrawn", reason)
    assert read_order(site.paths, task.task_id) is None


def test_an_expired_approval_lets_nothing_leave(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    site.now += 366 * 86400
    site.sweep()
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.APPROVAL_EXPIRED


def test_a_paused_site_keeps_everything_and_goes_on_afterwards(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    set_paused(open_records(site.paths), True)
    site.hand_over(task)
    site.sweep()
    assert read_order(site.paths, task.task_id) is None
    assert (site.verdict(task.task_id) or {})["verdict"] == "wait"
    assert only(site.sent(), UpdateNotice) == []
    set_paused(open_records(site.paths), False)
    site.sweep()
    assert len(only(site.sent(), UpdateNotice)) == 1


def test_a_broken_policy_decides_nothing_and_refuses_nothing(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.hand_over(task)
    site.with_policy("approval: [nonsense")
    site.sweep()
    assert len(site.sent()) == 1
    site.with_policy(PERMISSIVE_POLICY)
    site.sweep()
    assert len(only(site.sent(), UpdateNotice)) == 1


def test_a_site_with_too_few_training_patients_only_evaluates(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training=1)
    site.sweep()
    [approval] = site.sent()
    assert isinstance(approval, Approval)
    assert (approval.decision, approval.training_patients, approval.evaluates) == ("approved", 0, True)
    site.give(site.task(study))
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    assert refusal.reason is Reason.TOO_FEW_PATIENTS


def test_a_problem_of_the_cohort_stays_in_the_hospital(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, problem=Reason.LABELS_UNUSABLE)
    site.sweep()
    assert site.sent() == []
    record = site.record(study)
    assert (record.state, record.reason) == ("awaiting", Reason.LABELS_UNUSABLE)


def test_what_the_worker_finds_before_it_reads_a_patient_is_told_at_once(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, problem=Reason.UNKNOWN_NETWORK)
    site.sweep()
    [approval] = site.answers(study)
    assert (approval.decision, approval.reason) == ("refused", Reason.UNKNOWN_NETWORK)


def test_version_0_is_posted_as_weights_without_a_base(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study, 0, TaskKind.INITIALISE))
    site.hand_over(task, BASE)
    site.sweep()
    notice = site.sent()[-1]
    assert isinstance(notice, UpdateNotice)
    assert (notice.steps, notice.base_digest, notice.privacy, notice.weight) == (
        ["weights", "zstandard"],
        None,
        None,
        1.0,
    )


def waiting_update(site: GatedSite, study: StudySpec) -> Path:
    site.join(study)
    site.receive_all()
    site.sweep()
    task = site.give(site.task(study))
    site.hand_over(task)
    site.sweep()
    [payload] = site.paths.outbox.glob("*.payload")
    return payload


@pytest.mark.parametrize("restarts", [False, True])
def test_an_update_that_waits_in_the_outbox_is_taken_back_by_a_withdrawal(site: GatedSite, restarts: bool) -> None:
    study = study_of()
    payload = waiting_update(site, study)
    decide_as(site, study.digest, "withdrawn")
    if restarts:
        site.start()
    site.sweep()
    assert not payload.exists()
    assert not list(site.paths.gate_payloads.iterdir())
    assert not (site.paths.outbox / payload.name.replace(".payload", ".dsse.json")).exists()
    entries = egress.egress_entries(open_records(site.paths))
    [taken] = [entry for entry in entries if "takes_back" in entry]
    assert entries[taken["takes_back"] - 1]["kind"] == "wardround.update/1"
    hash_chain.verify(open_records(site.paths), "egress")


def test_a_paused_site_holds_its_outbox_back_and_fills_it_again_afterwards(site: GatedSite) -> None:
    payload = waiting_update(site, study_of())
    before = {path.name: path.read_bytes() for path in site.paths.outbox.iterdir()}
    set_paused(open_records(site.paths), True)
    site.sweep()
    assert not payload.exists()
    assert not list(site.paths.outbox.iterdir())
    set_paused(open_records(site.paths), False)
    site.sweep()
    assert {path.name: path.read_bytes() for path in site.paths.outbox.iterdir()} == before
