"""Heads of the privacy ledger: told after each charge, and a restored backup that hands no budget back."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protocol.messages import (
    Approval,
    LedgerCharge,
    LedgerHead,
    LedgerRecord,
    Reason,
    RoundTask,
    TaskKind,
    TaskRefusal,
    UpdateNotice,
)
from protocol.signing import SigningKey, sign
from protocol.study import StudySpec
from site_node.cli import app
from site_node.errors import GateError
from site_node.governance import hash_chain
from site_node.governance.ledger_entries import DismissedEntry, GapEntry, all_entries
from site_node.governance.ledger_heads import charge_gap, gap_of, is_behind
from site_node.governance.privacy_ledger import ledger_entries
from site_node.governance.records import open_records
from site_node.sqlite import transaction
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, patients_of, study_of
from tests.fakes.site_command import run

FIRST, SECOND, THIRD = (study_of(name=name) for name in ("first", "second", "third"))


def head_of(site: GatedSite) -> LedgerHead:
    number, chain = hash_chain.head(open_records(site.paths), "ledger")
    return LedgerHead(number=number, chain=chain)


def record_of(site: GatedSite, *charges: LedgerCharge, key: SigningKey | None = None) -> LedgerRecord:
    """Return what the hub sends back: the site's own charges, in their envelopes."""
    own = key or SigningKey.load_or_create(site.paths.identity_key)
    envelopes = [sign(charge.canonical_bytes(), own).decode() for charge in charges]
    return LedgerRecord(site=charges[0].site, charges=envelopes)


def worst(site: GatedSite) -> float:
    return float(site.budget()["epsilon"])


def test_each_charge_is_told_before_its_approval_with_the_new_head_and_the_one_before(site: GatedSite) -> None:
    heads = []
    for study in (FIRST, SECOND):
        site.join(study)
        heads.append(head_of(site))
    kinds = [type(message).__name__ for message in site.everything_sent()]
    assert kinds == ["LedgerCharge", "Approval"] * 2
    assert [charge.head for charge in site.charges()] == heads
    assert [charge.follows for charge in site.charges()] == [None, heads[0]]
    [event] = site.charges()[0].charged["training"]
    assert event.count == 3 * 2


def test_nothing_of_a_charge_tells_who_or_how_many_the_patients_are(site: GatedSite) -> None:
    site.propose(FIRST)
    site.sweep()
    site.count_cohort(FIRST, training=43, held_out=29)
    site.sweep()
    [charge] = site.charges()
    told = charge.model_dump(mode="json", by_alias=True)
    assert set(told) == {
        *("schema", "site", "study_digest", "number", "chain", "follows", "delta", "charged", "unprotected")
    }
    cohorts = {entry.cohort_digest for entry in ledger_entries(open_records(site.paths))}
    assert not any(cohort in str(told) for cohort in cohorts)
    assert {43, 29}.isdisjoint({told["number"], *(event["count"] for event in told["charged"]["training"])})


def test_a_head_that_the_ledger_holds_lets_everything_go_on(site: GatedSite) -> None:
    site.join(FIRST)
    first = head_of(site)
    site.join(SECOND, head=first)
    task = site.give(site.task(FIRST, ledger_head=first))
    assert (site.verdict(task.task_id) or {})["verdict"] == "accept"
    assert not is_behind(open_records(site.paths))


class Restored:
    """A site whose first study was charged, and whose gate was then put back to before it."""

    def __init__(self, site: GatedSite) -> None:
        self.site, self.backup = site, site.back_up()
        site.join(FIRST)
        [self.charge] = site.charges()
        site.receive_all()
        site.sweep()
        self.spent = worst(site)
        site.restore(self.backup)
        site.join(SECOND, head=self.charge.head)

    def reconcile(self) -> None:
        self.site.post(record_of(self.site, self.charge))
        self.site.sweep()
        status, output = run("reconcile", str(self.site.paths.root), "--yes")
        assert status == 0, output
        self.site.sweep()


@pytest.fixture
def restored(site: GatedSite) -> Restored:
    return Restored(site)


def refusal_of(site: GatedSite, task: RoundTask) -> Reason:
    site.give(task)
    refusal = site.sent()[-1]
    assert isinstance(refusal, TaskRefusal)
    return refusal.reason


def test_a_restored_backup_refuses_to_spend_until_the_gap_is_charged(restored: Restored) -> None:
    site = restored.site
    [approval] = site.sent()
    assert isinstance(approval, Approval)
    assert (approval.decision, approval.reason) == ("refused", Reason.LEDGER_BEHIND)
    assert worst(site) == 0.0
    assert site.charges() == []
    restored.reconcile()
    approval = site.sent()[-1]
    assert isinstance(approval, Approval)
    assert (approval.study_digest, approval.decision) == (SECOND.digest, "approved")
    [charge] = site.charges()
    assert charge.follows == restored.charge.head  # the hub's copy goes on from where it stands
    site.hand_over(site.give(site.task(SECOND, ledger_head=charge.head)))
    site.sweep()
    assert isinstance(site.sent()[-1], UpdateNotice)


def test_the_gap_is_charged_to_every_patient_of_the_site(restored: Restored) -> None:
    site = restored.site
    restored.reconcile()
    found = site.budget()
    assert [gap["study_digest"] for gap in found["gaps"]] == [FIRST.digest]
    site.propose(THIRD, head=head_of(site))
    site.sweep()
    site.count_cohort(THIRD, first=5000)  # patients of no study that is known
    site.sweep()
    alone = worst(site)
    assert alone > restored.spent  # the gap and the study
    assert found["fits_epsilon_new_patient"] <= 8


def test_a_budget_that_the_gap_uses_up_is_used_up_for_everybody(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n")
    restored = Restored(site)
    restored.reconcile()
    site.count_cohort(SECOND, first=9000)
    site.sweep()
    site.propose(THIRD)
    site.sweep()
    members = site.count_cohort(THIRD, first=7000)
    site.sweep()
    assert members.training == []
    assert members.spent_training == patients_of(7000, 40)
    assert site.answers(THIRD) == []
    assert site.record(THIRD).reason is Reason.BUDGET_SPENT


def test_a_task_of_a_running_study_is_refused_too_and_evaluation_without_noise_goes_on(site: GatedSite) -> None:
    site.join(FIRST)
    backup = site.back_up()
    site.join(SECOND)
    later = site.charges()[-1]
    site.restore(backup)
    assert refusal_of(site, site.task(FIRST, ledger_head=later.head)) is Reason.LEDGER_BEHIND
    judged = site.give(site.task(FIRST, 1, TaskKind.EVALUATE, ledger_head=later.head))
    assert (site.verdict(judged.task_id) or {})["verdict"] == "accept"


def test_a_noised_evaluation_is_refused_like_training(site: GatedSite) -> None:
    noised = study_of(evaluation={"noise_epsilon": 0.5})
    site.join(noised)
    backup = site.back_up()
    site.join(SECOND)
    later = site.charges()[-1]
    site.restore(backup)
    assert refusal_of(site, site.task(noised, 1, TaskKind.EVALUATE, ledger_head=later.head)) is Reason.LEDGER_BEHIND


def test_a_ledger_with_another_history_is_behind_though_it_is_as_long(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    [kept] = site.charges()
    site.restore(backup)
    site.join(SECOND)
    assert head_of(site).number == kept.number
    assert refusal_of(site, site.task(SECOND, ledger_head=kept.head)) is Reason.LEDGER_BEHIND


def test_the_same_study_charged_again_after_a_restore_is_another_ledger_and_both_charges_stand(site: GatedSite) -> None:
    """Else a gate that forgot which rounds it has answered would answer them again on the same budget."""
    backup = site.back_up()
    site.join(FIRST)
    [kept] = site.charges()
    once = worst(site)
    site.restore(backup)
    site.join(FIRST)
    [again] = site.charges()
    assert (again.charged, again.number) == (kept.charged, kept.number)
    assert again.chain != kept.chain
    site.receive_all(accepted=False)  # the hub keeps the first one
    assert refusal_of(site, site.task(FIRST, ledger_head=kept.head)) is Reason.LEDGER_BEHIND
    site.post(record_of(site, kept))
    site.sweep()
    assert run("reconcile", str(site.paths.root), "--yes")[0] == 0
    site.sweep()
    told = site.charges()[-1]
    assert (told.study_digest, told.follows) == (FIRST.digest, kept.head)
    assert worst(site) > once
    task = site.give(site.task(FIRST, 2, ledger_head=told.head))
    assert (site.verdict(task.task_id) or {})["verdict"] == "accept"


def test_what_the_hub_refused_because_of_the_gap_is_told_again_after_it(site: GatedSite) -> None:
    """The backup is restored while nobody knows: the next charge is refused by the hub, which sends its record."""
    backup = site.back_up()
    site.join(FIRST)
    [kept] = site.charges()
    site.restore(backup)
    site.join(SECOND)
    [refused] = site.charges()
    site.receive_all(accepted=False)
    site.sweep()
    site.post(record_of(site, kept))
    site.sweep()
    assert is_behind(open_records(site.paths))
    assert run("reconcile", str(site.paths.root), "--yes")[0] == 0
    site.sweep()
    again = site.charges()[-1]
    assert (again.study_digest, again.charged) == (refused.study_digest, refused.charged)
    assert again.follows == kept.head
    assert again.chain != refused.chain
    site.sweep()
    assert len(site.charges()) == 2
    told = site.budget()["told"]
    assert [entry["countersigned"] for entry in told] == [False, None]


def test_a_crash_while_a_charge_is_told_again_tells_it_once(site: GatedSite) -> None:
    backup = site.back_up()
    site.join(FIRST)
    [kept] = site.charges()
    site.restore(backup)
    site.join(SECOND)
    site.receive_all(accepted=False)
    site.sweep()
    site.post(record_of(site, kept))
    site.sweep()
    assert run("reconcile", str(site.paths.root), "--yes")[0] == 0
    site.lose_power_at("charge restated")
    site.sweep()
    assert len(site.charges()) == 2


def test_a_head_whose_charges_have_not_come_cannot_be_reconciled_yet(restored: Restored) -> None:
    database = open_records(restored.site.paths)
    own = SigningKey.load_or_create(restored.site.paths.identity_key).public
    gap = gap_of(database, own, "st-anna")
    assert (gap.charges, list(gap.unexplained)) == ((), [restored.charge.head])
    with pytest.raises(GateError, match="not sent yet"), transaction(database):
        charge_gap(database, gap)
    status, output = run("reconcile", str(restored.site.paths.root), "--yes")
    assert (status, "not sent yet" in output) == (1, True)


@pytest.mark.parametrize("whose", ["stranger", "other site"])
def test_charges_that_this_site_has_not_signed_are_not_kept(restored: Restored, whose: str) -> None:
    site = restored.site
    foreign = restored.charge.model_copy(update={"site": "elsewhere"})
    stranger = SigningKey.generate() if whose == "stranger" else None
    site.post(record_of(site, foreign if whose == "other site" else restored.charge, key=stranger))
    site.sweep()
    assert open_records(site.paths).execute("SELECT COUNT(*) FROM hub_charges").fetchone()[0] == 0


def test_reconcile_shows_the_gap_and_charges_it_once_and_only_if_told_to(restored: Restored) -> None:
    site, folder = restored.site, str(restored.site.paths.root)
    site.post(record_of(site, restored.charge))
    site.sweep()
    found = json.loads(run("reconcile", folder, "--json")[1])
    assert [entry["study_digest"] for entry in found["missing"]] == [FIRST.digest]
    assert found["charged"] is False
    assert CliRunner().invoke(app, ["reconcile", folder], input="n\n").exit_code == 1
    assert is_behind(open_records(site.paths))
    status, output = run("budget", folder)
    assert (status, "BEHIND" in output) == (0, True)
    for _ in range(2):
        assert run("reconcile", folder, "--yes")[0] == 0
    gaps = [entry for entry in all_entries(open_records(site.paths)) if isinstance(entry, GapEntry)]
    assert len(gaps) == 1
    assert json.loads(run("budget", folder, "--json")[1])["behind"] is False


def test_reconcile_gives_up_what_was_answered_after_the_whole_site_was_restored(site: GatedSite) -> None:
    """Mark and database went back together: only the administrator knows, and says so."""
    folder = str(site.paths.root)
    assert "--whole-site" not in run("reconcile", folder)[1]
    site.join(FIRST)
    site.hand_over(site.give(site.task(FIRST)))
    site.sweep()
    site.restore(site.back_up())
    status, output = run("reconcile", folder)
    assert (status, "--whole-site" in output, FIRST.digest in output) == (0, True, True)
    assert json.loads(run("reconcile", folder, "--json")[1])["answered_studies"] == [FIRST.digest]
    assert run("reconcile", folder, "--whole-site", "--yes")[0] == 0
    site.sweep()
    withdrawn = site.sent()[-1]
    assert isinstance(withdrawn, Approval)
    assert (withdrawn.study_digest, withdrawn.decision) == (FIRST.digest, "withdrawn")
    assert refusal_of(site, site.task(FIRST, 2)) is Reason.APPROVAL_WITHDRAWN


def test_receipts_are_the_countersignatures(site: GatedSite) -> None:
    def told() -> list[bool | None]:
        found = site.budget()
        return [entry["countersigned"] for entry in found["told"]]

    site.join(FIRST)
    assert told() == [None]
    site.receive_all()
    site.sweep()
    assert told() == [True]


def test_a_study_that_spends_nothing_is_approved_even_while_the_ledger_is_behind(restored: Restored) -> None:
    site = restored.site
    plain: StudySpec = study_of(name="plain")
    site.propose(plain)
    site.sweep()
    site.count_cohort(plain, training=0, held_out=20)
    site.sweep()
    approval = site.sent()[-1]
    assert isinstance(approval, Approval)
    assert (approval.study_digest, approval.decision) == (plain.digest, "approved")


def test_a_head_that_the_hub_made_up_is_set_aside_and_noted_and_a_signed_charge_still_counts(site: GatedSite) -> None:
    folder = str(site.paths.root)
    site.join(FIRST)
    made_up = LedgerHead(number=999, chain="sha256:" + "ab" * 32)
    assert refusal_of(site, site.task(FIRST, ledger_head=made_up)) is Reason.LEDGER_BEHIND
    assert run("reconcile", folder, "--yes", "--whole-site")[0] == 1
    assert CliRunner().invoke(app, ["reconcile", folder, "--dismiss-unproven"], input="n\n").exit_code == 1
    assert is_behind(open_records(site.paths))
    status, output = run("reconcile", folder, "--yes", "--dismiss-unproven")
    assert (status, "hands budget back" in output) == (0, True)
    database = open_records(site.paths)
    assert not is_behind(database)
    assert [entry.head for entry in all_entries(database) if isinstance(entry, DismissedEntry)] == [made_up]


def test_a_dismissed_head_counts_again_when_its_signed_charge_comes(restored: Restored) -> None:
    site = restored.site
    assert run("reconcile", str(site.paths.root), "--yes", "--dismiss-unproven")[0] == 0
    assert not is_behind(open_records(site.paths))
    site.post(record_of(site, restored.charge))
    site.sweep()
    assert is_behind(open_records(site.paths))
