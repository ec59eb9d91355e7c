"""Each patient's own lifetime budget: who is left out, when a study is refused, and two studies at the same time."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from protocol.accountants import NEIGHBOURS
from protocol.digest import digest_of, digest_of_bytes
from protocol.messages import Approval, Reason, TaskKind
from protocol.privacy_events import PrivacyEvent
from protocol.privacy_filter import FREE, preset_budget
from protocol.study import StudySpec
from site_node.budget_report import sentences_of
from site_node.cohort_members import CohortMembers, read_spent
from site_node.errors import GateError
from site_node.governance.context import fresh_nonce
from site_node.governance.ledger_entries import Entry, LedgerEntry
from site_node.governance.patient_accounts import SCHEMA, accounts_of, charged_patients, keep_group, plus, unaffording
from site_node.governance.policy import load_policy
from site_node.governance.privacy_ledger import accounts
from site_node.governance.records import open_records, study_record
from site_node.orders import cohort_task_id, read_order
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, patients_of, study_of
from tests.fakes.power_cuts import PowerCutError, power_cut

TIGHT = PERMISSIVE_POLICY + "lifetime_epsilon: 4.5\n"  # one study of epsilon 4 fits, a second one does not


@pytest.fixture
def tight(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, TIGHT)


def join(site: GatedSite, name: str, *, training: int = 40, first: int = 0, **changes: Any) -> CohortMembers:
    study = study_of(name=name, **changes)
    site.propose(study)
    site.sweep()
    members = site.count_cohort(study, training=training, first=first)
    site.sweep()
    return members


def last(site: GatedSite) -> Approval:
    approval = site.sent()[-1]
    assert isinstance(approval, Approval)
    return approval


def every_patient_keeps_the_budget(site: GatedSite) -> bool:
    held = accounts(open_records(site.paths), load_policy(site.settings.policy))
    spent = [plus(held.everybody, own) for _, own in charged_patients(open_records(site.paths), held)]
    return all(held.budget.epsilon_spent(cost) <= held.budget.epsilon for cost in spent)


def test_patients_of_an_earlier_study_are_left_out_and_the_others_take_part(tight: GatedSite) -> None:
    join(tight, "first", training=40)
    members = join(tight, "second", training=100)
    assert members.training == patients_of(40, 60)
    assert members.spent_training == patients_of(0, 40)
    assert (last(tight).decision, last(tight).training_patients) == ("approved", 100)  # who matches, left out or not
    assert every_patient_keeps_the_budget(tight)


def test_other_patients_have_a_budget_of_their_own(tight: GatedSite) -> None:
    for number in range(3):
        members = join(tight, f"study-{number}", first=1000 * number)
        assert members.spent_training == []
        assert last(tight).decision == "approved"


def test_their_number_is_neither_sent_nor_logged(tight: GatedSite) -> None:
    with capture_logs() as logs:
        join(tight, "first", training=37)
        join(tight, "second", training=100)
    left = [message.model_dump(mode="json", by_alias=True) for message in tight.everything_sent()]
    assert "37" not in str([{**message, "study_digest": "", "chain": "", "follows": ""} for message in left[2:]])
    assert "63" not in str([{**message, "study_digest": "", "chain": "", "follows": ""} for message in left[2:]])
    assert not any(value in (37, 63) for entry in logs for value in entry.values())


HASHES = {"chain": "", "follows": None}


@settings(max_examples=6, deadline=None)
@given(training=st.integers(2, 90), held_out=st.integers(0, 40))
def test_what_leaves_is_the_same_however_many_are_left_out(training: int, held_out: int) -> None:
    """Two hospitals: one has spent the budget of some of the second study's patients, the other that of strangers."""
    told = []
    for first in (0, 5000):
        with TemporaryDirectory() as folder:
            site = GatedSite.make(Path(folder), TIGHT)
            messages, left_out = _told_of_the_second_study(site, training, held_out, first)
        assert left_out == ((training, held_out) if first == 0 else (0, 0))
        told.append(messages)
    assert told[0] == told[1]
    assert [message["schema"].split("/")[0] for message in told[0]] == [
        *("wardround.ledger-charge", "wardround.approval", "wardround.update")
    ]


def _told_of_the_second_study(
    site: GatedSite, training: int, held_out: int, first: int
) -> tuple[list[dict[str, Any]], tuple[int, int]]:
    noised = {"evaluation": {"noise_epsilon": 0.5, "at_most": 6}}
    earlier, second = study_of(name="earlier", **noised), study_of(name="second", **noised)
    for study, numbers, start in ((earlier, (training, held_out), first), (second, (100, 50), 0)):
        site.propose(study)
        site.sweep()
        members = site.count_cohort(study, *numbers, first=start)
        site.sweep()
    site.hand_over(site.give(site.task(second)))
    site.sweep()
    told = [message.model_dump(mode="json", by_alias=True) for message in site.everything_sent()]
    of_the_second = [{**message, **HASHES} for message in told if message.get("study_digest") == second.digest]
    return of_the_second, (len(members.spent_training), len(members.spent_held_out))


def test_a_study_for_which_too_few_remain_waits_and_the_administrator_reads_what_would_fit(tmp_path: Path) -> None:
    tight = GatedSite.make(tmp_path, TIGHT.replace("minimum_patients: 1", "minimum_patients: 10"))
    join(tight, "first", training=40)
    join(tight, "second", training=45)
    assert tight.answers(study_of(name="second")) == []
    record = tight.record(study_of(name="second"))
    assert (record.state, record.reason) == ("awaiting", Reason.BUDGET_SPENT)
    assert "Fewer than 10 patients" in record.detail
    assert "With privacy.epsilon at most" in record.detail
    assert len(tight.charges()) == 1


def test_a_site_that_never_had_enough_patients_is_not_said_to_have_spent_them(tmp_path: Path) -> None:
    tight = GatedSite.make(tmp_path, TIGHT.replace("minimum_patients: 1", "minimum_patients: 10"))
    join(tight, "first", training=40)
    join(tight, "second", training=5)
    assert tight.record(study_of(name="second")).reason is None
    tight.decide(study_of(name="second"), "approved")
    assert (last(tight).decision, last(tight).training_patients) == ("approved", 0)


def test_an_order_names_the_list_of_those_it_leaves_out(tight: GatedSite) -> None:
    join(tight, "first")
    study = study_of(name="second")
    tight.propose(study)
    tight.sweep()
    order = read_order(tight.paths, cohort_task_id(study.digest))
    assert order is not None
    assert read_spent(tight.paths, order.task_id, order.spent_digest).training == frozenset(patients_of(0, 40))
    tight.count_cohort(study)
    tight.sweep()
    tight.decide(study, "refused")
    assert {path.suffix for path in tight.paths.orders.iterdir()} == {".ended"}


@pytest.mark.parametrize("kind", [TaskKind.TRAIN, TaskKind.EVALUATE])
def test_the_order_of_a_task_names_the_cohort_that_was_charged(tight: GatedSite, kind: TaskKind) -> None:
    join(tight, "first")
    study = study_of(name="first")
    order = read_order(tight.paths, tight.give(tight.task(study, kind=kind)).task_id)
    assert order is not None
    assert order.cohort_digest == tight.record(study).cohort_digest == digest_of_bytes(b"cohort")


class Together:
    """Two studies of the same patients, both counted before either is approved."""

    def __init__(self, site: GatedSite) -> None:
        self.site = site
        self.studies = [study_of(name="one"), study_of(name="other")]

    def count(self) -> None:
        for study in self.studies:
            self.site.propose(study)
        self.site.sweep()
        for study in self.studies:
            self.site.count_cohort(study)

    def again(self) -> StudySpec:
        """Return the study that has to be counted again."""
        database = open_records(self.site.paths)
        [again] = [s for s in self.studies if (known := study_record(database, s.digest)) and known.recount == 1]
        return again


def test_two_studies_counted_at_the_same_time_do_not_both_spend_a_patient(tight: GatedSite) -> None:
    both = Together(tight)
    both.count()
    tight.sweep()
    assert [message.decision for message in tight.sent() if isinstance(message, Approval)] == ["approved"]
    again = both.again()
    assert tight.count_cohort(again, training=70, recount=1).training == patients_of(40, 30)
    tight.sweep()
    assert (last(tight).study_digest, last(tight).training_patients) == (again.digest, 70)
    assert every_patient_keeps_the_budget(tight)


STEPS = ("budget preset", "cohort read", "approval recorded", "cohort to be counted again", "orders written")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("occurrence", [1, 2])
def test_a_crash_while_two_studies_are_charged_never_under_counts(tight: GatedSite, step: str, occurrence: int) -> None:
    both = Together(tight)
    tight.checkpoint = power_cut(step, occurrence)
    for action in (both.count, tight.sweep):
        try:
            action()
        except PowerCutError:
            tight.start()
            action()
    for study in both.studies:
        tight.count_cohort(study)  # the worker may do it again
    tight.sweep()
    tight.count_cohort(both.again(), training=70, recount=1)
    tight.sweep()
    assert every_patient_keeps_the_budget(tight)
    approved = {m.study_digest for m in tight.sent() if isinstance(m, Approval) and m.decision == "approved"}
    assert approved == {charge.study_digest for charge in tight.charges()} == {s.digest for s in both.studies}


def test_a_stale_count_is_not_used_for_the_new_one(tight: GatedSite) -> None:
    both = Together(tight)
    both.count()
    tight.sweep()
    tight.count_cohort(both.again())  # of the first order, come late
    tight.sweep()
    assert len(tight.charges()) == 1


def test_members_that_are_not_those_of_the_figures_are_not_approved(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training_patients=39)
    site.sweep()
    assert (site.record(study).state, site.record(study).reason) == ("awaiting", Reason.INTERNAL)
    other = study_of(name="other")
    site.propose(other)
    site.sweep()
    site.count_cohort(other, members_digest="sha256:" + "0" * 64)
    site.sweep()
    assert site.record(other).reason is Reason.INTERNAL
    assert site.sent() == []


def test_many_small_studies_fit_where_their_epsilons_would_not_add_up(tmp_path: Path) -> None:
    """Lifetime 8: by addition two studies of epsilon 4; the filter admits more, and stops in time."""
    site, admitted = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "lifetime_epsilon: 8\n"), 0
    for number in range(30):
        join(site, f"study-{number}", training=5)
        if site.record(study_of(name=f"study-{number}")).state == "awaiting":
            break
        admitted += 1
    assert 2 < admitted < 30
    assert every_patient_keeps_the_budget(site)


def test_a_policy_may_add_epsilons_up_instead(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "composition: sum\nlifetime_epsilon: 8\n")
    for number, state in enumerate(("approved", "approved", "awaiting")):
        join(site, f"study-{number}")
        assert site.record(study_of(name=f"study-{number}")).state == state
    assert site.budget()["epsilon"] == pytest.approx(8.0, rel=0.02)


def test_the_budget_page_shows_the_worst_patient_and_hides_small_groups(site: GatedSite) -> None:
    assert site.budget()["epsilon"] == 0.0
    join(site, "first", training=47)
    join(site, "second", training=3)
    found = site.budget()
    assert 0 < found["epsilon"] <= 24
    assert found["fits_epsilon"] <= found["fits_epsilon_new_patient"] <= 8
    assert {entry["patients_at_least"] for entry in found["used"]} <= {40, None}
    assert [study["unprotected"] for study in found["studies"]] == [False, False]
    assert all(3.5 < study["epsilon"] <= 4 for study in found["studies"])
    text = re.sub("sha256:[0-9a-f]{64}", "", "\n".join(sentences_of(found)))
    assert not re.search(r"\b47\b", text)
    assert "Renyi filter of order" in text


def test_an_unprotected_study_costs_nothing_and_is_called_so(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\n")
    join(site, "open", privacy={"epsilon": None})
    found = site.budget()
    assert found["epsilon"] == 0.0
    assert "NO DIFFERENTIAL PRIVACY" in "\n".join(sentences_of(found))


EVENTS = st.builds(
    lambda noise, count: PrivacyEvent(
        mechanism="poisson-gaussian", sampling_rate=0.2, noise_multiplier=noise, count=count
    ),
    st.floats(0.7, 6.0),
    st.integers(1, 60),
)
STUDIES = st.lists(st.tuples(st.sets(st.integers(0, 5), min_size=1), EVENTS), min_size=1, max_size=15)


@settings(max_examples=40, deadline=None)
@given(STUDIES)
def test_whatever_is_asked_of_whom_no_patient_s_filter_is_ever_exceeded(
    studies: list[tuple[set[int], PrivacyEvent]],
) -> None:
    """Each study goes on with those who can afford it; a single accountant then checks each patient's events."""
    budget = preset_budget(6.0, 1e-3, maximum_epsilon=4.0, maximum_delta=1e-4)
    entries: list[Entry] = []
    taken: dict[str, list[PrivacyEvent]] = {}
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(SCHEMA)
        for wanted, event in studies:
            held, cost = accounts_of(entries, budget), budget.cost([event], 1e-4)
            spent = set(unaffording(database, held, cost)) if held.affords(FREE, cost) else None
            joining = [] if spent is None else [f"{who:032x}" for who in sorted(wanted) if f"{who:032x}" not in spent]
            cohort = keep_group(database, joining)
            digest = digest_of(len(entries))
            fields = {"study_digest": digest, "cohort_digest": cohort, "patients": "training", "delta": 1e-4}
            entries.append(LedgerEntry.model_validate({**fields, "event": event, "nonce": fresh_nonce()}))
            for who in joining:
                taken.setdefault(who, []).append(event)
    assert budget.order is not None
    for events in taken.values():
        accountant = RdpAccountant([budget.order], NEIGHBOURS)
        for event in events:
            single = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, single), event.count)
        assert accountant.get_epsilon(budget.delta) <= budget.epsilon


@pytest.mark.parametrize("forgery", ["DELETE FROM group_members WHERE pseudonym LIKE '%1'", "INSERT"])
def test_a_group_that_was_changed_behind_our_back_is_found(site: GatedSite, forgery: str) -> None:
    join(site, "first")
    database = open_records(site.paths)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        database.execute("DELETE FROM group_members")
    database.execute("DROP TRIGGER group_members_stay")
    if forgery == "INSERT":
        forgery = f"INSERT INTO group_members SELECT cohort, '{'f' * 32}' FROM group_members LIMIT 1"  # noqa: S608
    database.execute(forgery)
    with pytest.raises(GateError, match="not those that the ledger names"):
        site.budget()


def test_a_patient_is_charged_for_each_of_their_groups(site: GatedSite) -> None:
    join(site, "first", training=10)
    join(site, "second", training=5)
    held = accounts(open_records(site.paths), load_policy(site.settings.policy))
    own = dict(charged_patients(open_records(site.paths), held))
    twice, once = own[patients_of(0, 1)[0]], own[patients_of(9, 1)[0]]
    assert twice == pytest.approx(plus(once, once))
    assert held.everybody == FREE
