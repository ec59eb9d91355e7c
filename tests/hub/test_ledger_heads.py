"""The hub's copy of the sites' ledgers: only forward, countersigned, told to the site, held against what it says."""

from typing import Any

import pytest

from hub.errors import ChargeMissingError
from hub.services import Services
from hub.storage import audit_stores, ledger_stores
from hub.studies import coordinator, ledger_heads
from protocol.digest import parse_json
from protocol.messages import (
    LedgerCharge,
    LedgerHead,
    LedgerRecord,
    Reason,
    RoundTask,
    StudyProposal,
    TaskKind,
    TaskRefusal,
    expect,
)
from protocol.signing import open_envelope
from protocol.study import StudySpec
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Queue
from tests.hub.rounds.bench import Bench, filled, study_of

pytestmark = pytest.mark.both_databases

PRIVATE: dict[str, Any] = {"privacy": {"epsilon": 8.0, "delta": 1e-4}, "participants": {"training_patients": 100}}
NOISED: dict[str, Any] = {"evaluation": {"noise_epsilon": 0.5}}


@pytest.fixture
def bench(services: Services, hospitals: list[Hospital], queue: Queue) -> Bench:
    return Bench(services, hospitals, queue)


@pytest.fixture
def anna(bench: Bench) -> Hospital:
    return bench.hospital("anna")


def proposed(bench: Bench, name: str = "first", **changes: Any) -> StudySpec:
    study = study_of(**{**PRIVATE, "name": name, **changes})
    coordinator.propose(bench.services, study, [], "researcher")
    return study


def head(bench: Bench, site: str = "anna") -> LedgerHead | None:
    with bench.services.reading() as session:
        return ledger_heads.head_of(session, site)


def audited(bench: Bench, action: str) -> list[dict[str, Any]]:
    with bench.services.reading() as session:
        entries = [parse_json(row.entry) for row in audit_stores.entries(session, 0, 1000)]
    return [entry for entry in entries if entry["action"] == action]


def test_a_charge_is_countersigned_kept_and_audited_and_again_changes_nothing(bench: Bench, anna: Hospital) -> None:
    charge = anna.charge(proposed(bench))
    assert bench.say(anna, charge).accepted
    assert bench.say(anna, charge).accepted
    assert head(bench) == charge.head
    [entry] = audited(bench, "ledger.charged")
    assert 7.5 < entry["details"]["epsilon"] <= 8.0


def test_an_approval_without_its_charge_is_not_taken_until_the_charge_comes(bench: Bench, anna: Hospital) -> None:
    study = proposed(bench)
    approval = anna.approval(study.digest)
    with pytest.raises(ChargeMissingError):  # no receipt: the site keeps it and sends it again
        bench.say(anna, approval)
    bench.say(anna, anna.charge(study))
    assert bench.say(anna, approval).accepted


@pytest.mark.parametrize("approval", [{"patients": 0}, {"decision": "refused", "reason": "policy"}])
def test_what_spends_nothing_needs_no_charge(bench: Bench, anna: Hospital, approval: dict[str, Any]) -> None:
    assert bench.say(anna, anna.approval(proposed(bench).digest, **approval)).accepted


def test_noised_evaluation_needs_its_charge_too(bench: Bench, anna: Hospital) -> None:
    study = proposed(bench, evaluation={"noise_epsilon": 0.5})
    with pytest.raises(ChargeMissingError):
        bench.say(anna, anna.approval(study.digest, patients=0))


def test_the_head_goes_into_the_next_proposal_and_into_every_task(bench: Bench, anna: Hospital) -> None:
    bench.start(study_of(**PRIVATE))
    [first] = bench.mail(anna, StudyProposal)
    [task] = bench.tasks(TaskKind.INITIALISE)
    assert (first.ledger_head, task.ledger_head) == (None, head(bench))
    proposed(bench, "second")
    assert bench.mail(anna, StudyProposal)[-1].ledger_head == head(bench)


def conflict_of(bench: Bench, anna: Hospital) -> LedgerCharge:
    """Return a charge of a ledger that was rolled back to its beginning, after one that is kept."""
    bench.say(anna, anna.charge(proposed(bench)))
    anna.head = None
    return anna.charge(proposed(bench, "second"), chain="sha256:" + "5" * 64)


def test_a_ledger_that_was_rolled_back_is_refused_audited_and_sent_its_record(bench: Bench, anna: Hospital) -> None:
    charge = conflict_of(bench, anna)
    before = head(bench)
    receipt = bench.say(anna, charge)
    assert not receipt.accepted
    assert "rolled back" in receipt.reason
    assert head(bench) == before
    assert len(audited(bench, "ledger.refused")) == 1
    [record] = bench.mail(anna, LedgerRecord)
    [kept] = [expect(open_envelope(text.encode(), anna.identity.public), LedgerCharge) for text in record.charges]
    assert kept.head == before


def test_a_ledger_that_was_reconciled_goes_on_where_the_hub_stands(bench: Bench, anna: Hospital) -> None:
    refused = conflict_of(bench, anna)
    bench.say(anna, refused)
    again = refused.model_copy(update={"follows": head(bench), "number": 5, "chain": "sha256:" + "6" * 64})
    assert bench.say(anna, again).accepted
    assert head(bench) == again.head


def test_charges_that_overtake_each_other_are_all_kept(bench: Bench, anna: Hospital) -> None:
    first, second = (anna.charge(proposed(bench, name)) for name in ("first", "second"))
    assert bench.say(anna, second).accepted
    assert bench.say(anna, first).accepted
    assert head(bench) == second.head
    with bench.services.reading() as session:
        assert len(ledger_stores.charges_of_site(session, "anna")) == 2


def test_a_charge_with_the_words_of_another_is_refused(bench: Bench, anna: Hospital) -> None:
    study = proposed(bench)
    charge = anna.charge(study)
    bench.say(anna, charge)
    other = charge.model_copy(update={"follows": LedgerHead(number=7, chain=charge.chain)})
    assert not bench.say(anna, other).accepted


def noisier(study: StudySpec) -> dict[str, Any]:
    return {"charged": {"training": [{"mechanism": "poisson-gaussian", "noise_multiplier": 0.2, "count": 50}]}}


@pytest.mark.parametrize("patients", ["training", "held-out"])
def test_a_charge_of_one_group_is_taken_and_an_approval_needs_that_of_each_it_uses(
    bench: Bench, anna: Hospital, patients: str
) -> None:
    study = proposed(bench, **NOISED)
    both = anna.charge(study)
    only = both.model_copy(update={"charged": {patients: both.charged[patients]}})  # type: ignore[index]
    assert bench.say(anna, only).accepted
    trains, judges = patients == "training", patients == "held-out"
    with pytest.raises(ChargeMissingError):
        bench.say(anna, anna.approval(study.digest, patients=40, evaluates=True))
    approval = anna.approval(study.digest, patients=40 if trains else 0, evaluates=judges)
    assert bench.say(anna, approval).accepted


@pytest.mark.parametrize("patients", ["training", "held-out"])
def test_a_charge_of_less_than_the_study_plans_is_refused(bench: Bench, anna: Hospital, patients: str) -> None:
    charged = anna.charge(proposed(bench, **NOISED)).model_dump(mode="json", by_alias=True)["charged"]
    charged[patients][0]["count"] -= 1
    anna.head = None
    receipt = bench.say(anna, anna.charge(proposed(bench, "again", **NOISED), charged=charged))
    assert not receipt.accepted
    assert f"charged to {patients} patients" in receipt.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (noisier(study_of()), "above the study's 8"),
        ({"charged": {}}, "no event"),
        ({"delta": 1e-5}, "delta"),
        ({"unprotected": True, "charged": {}}, "without"),
    ],
)
def test_a_charge_of_other_terms_is_refused_and_audited(
    bench: Bench, anna: Hospital, changes: dict[str, Any], words: str
) -> None:
    receipt = bench.say(anna, anna.charge(proposed(bench, **NOISED), **changes))
    assert not receipt.accepted
    assert words in receipt.reason
    assert head(bench) is None
    assert len(audited(bench, "ledger.refused")) == 1


def test_a_site_that_refuses_for_its_ledger_is_sent_its_record(bench: Bench, anna: Hospital) -> None:
    bench.begin(study_of(**PRIVATE))
    task: RoundTask = next(task for task in bench.tasks(TaskKind.TRAIN) if task.site == "anna")
    refusal = TaskRefusal(
        site="anna", task_id=task.task_id, study_digest=task.study_digest, reason=Reason.LEDGER_BEHIND
    )
    assert bench.say(anna, refusal).accepted
    assert len(bench.mail(anna, LedgerRecord)) == 1
    later = study_of(**PRIVATE, name="later")
    coordinator.propose(bench.services, later, [], "researcher")
    behind = anna.approval(later.digest, "refused", reason=Reason.LEDGER_BEHIND)
    assert bench.say(anna, behind).accepted
    assert len(bench.mail(anna, LedgerRecord)) == 2


def test_a_record_ends_with_a_message_that_could_hold_more_so_that_a_site_knows_it_has_heard_all(
    bench: Bench, anna: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_heads, "MAX_RECORD_CHARGES", 1)
    with bench.services.transaction() as session:
        ledger_heads.post_record(session, bench.services, "anna")
    assert [len(record.charges) for record in bench.mail(anna, LedgerRecord)] == [0]
    bench.say(anna, conflict_of(bench, anna))
    assert [len(record.charges) for record in bench.mail(anna, LedgerRecord)] == [0, 1, 0]


def test_what_a_site_spent_is_held_against_what_it_charged(bench: Bench, anna: Hospital) -> None:
    """An update that states more epsilon than the site's own signed charge is refused."""
    bench.begin(study_of(**PRIVATE))
    task = next(task for task in bench.tasks(TaskKind.TRAIN) if task.site == "anna")
    payload = bench.packed(filled(1.0))
    notice = bench.notice(task, payload)
    assert notice.privacy is not None
    more = notice.privacy.model_copy(update={"epsilon": 9.0})
    state = bench.announce(task, notice.model_copy(update={"privacy": more}))
    assert "was charged" in bench.receipt(state).reason
    assert [entry["details"]["site"] for entry in audited(bench, "update.refused")] == ["anna"]
