"""A number of training patients that leaves noised: charged, checked, and told by a person's decision alone."""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.messages import Approval, LedgerCharge, Reason
from protocol.study import StudySpec
from site_node.governance.patient_accounts import charged_patients
from site_node.governance.policy import load_policy
from site_node.governance.privacy_ledger import accounts
from site_node.governance.records import open_records
from site_node.overview import studies_of
from site_node.study_summary import lines_of, summary_of
from tests.fakes.gated_site import DAY, PERMISSIVE_POLICY, GatedSite, patients_of, study_of

TEN = PERMISSIVE_POLICY.replace("minimum_patients: 1", "minimum_patients: 10")
NOISED = {"epsilon": 4.0, "delta": 1e-4, "count_epsilon": 0.5}


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, PERMISSIVE_POLICY)


def counted(
    site: GatedSite, told: int, training: int = 40, name: str = "tiny", *, decided: bool = True, **more: Any
) -> StudySpec:
    """Propose a study with noised counts, count so many patients, of whom another number is told, and approve it."""
    privacy = NOISED | more.pop("privacy", {})
    study = study_of(name=name, privacy=privacy)
    site.propose(study)
    site.sweep()
    figures = {"training_patients": told, "count_epsilon": privacy["count_epsilon"]}
    site.count_cohort(study, training=training, **figures | more)
    site.sweep()
    if decided and (record := site.record(study)).state == "awaiting" and record.reason is None:
        site.decide(study, "approved")
    return study


def told_for(site: GatedSite, study: StudySpec) -> list[int]:
    return [m.training_patients for m in site.sent() if isinstance(m, Approval) and m.study_digest == study.digest]


def test_the_noised_number_leaves_after_its_charge_and_says_that_it_is_noised(site: GatedSite) -> None:
    counted(site, told=43)
    charge, approval = [m for m in site.everything_sent() if isinstance(m, LedgerCharge | Approval)]
    assert isinstance(charge, LedgerCharge)
    assert isinstance(approval, Approval)
    assert (approval.training_patients, approval.count_epsilon) == (43, 0.5)
    laplace = [event for event in charge.charged["training"] if event.mechanism == "discrete-laplace"]
    assert [(event.noise_multiplier, event.count) for event in laplace] == [(2.0, 1)]


def test_an_exact_number_says_that_it_is_exact(site: GatedSite) -> None:
    site.join(study_of())
    approval = site.sent()[-1]
    assert isinstance(approval, Approval)
    assert (approval.training_patients, approval.count_epsilon) == (40, None)


def test_a_site_that_does_not_train_tells_no_noised_number(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("minimum_patients: 1\n", "minimum_patients: 50\n", 1))
    study = counted(site, told=43, decided=False)
    record = site.record(study)
    assert record.training_patients == 0
    assert told_for(site, study) == []  # and a person has to say even that


@pytest.mark.parametrize(
    "wrong",
    [
        {"training_patients": 130},
        {"training_patients": 1},
        {"count_epsilon": None},
        {"count_epsilon": 0.4},
        {"held_out_patients": 21},
    ],
    ids=["further than noise goes", "below the study's minimum", "exact", "other noise", "other held-out patients"],
)
def test_figures_that_the_study_cannot_have_given_do_not_leave(site: GatedSite, wrong: dict[str, Any]) -> None:
    study = counted(site, told=43, **wrong)
    assert (told_for(site, study), site.charges()) == ([], [])
    assert site.record(study).reason is Reason.INTERNAL


def test_a_noised_number_does_not_leave_for_a_study_that_takes_exact_ones(site: GatedSite) -> None:
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training=40, training_patients=43, count_epsilon=0.5)
    site.sweep()
    assert (told_for(site, study), site.record(study).reason) == ([], Reason.INTERNAL)


@pytest.mark.parametrize("policy", [PERMISSIVE_POLICY, TEN], ids=["no minimum", "ten"])
@pytest.mark.parametrize(("training", "told"), [(12, 12), (12, 13), (40, 40), (40, 90), (1, 2), (0, 0)])
def test_an_automatic_hospital_is_silent_whatever_was_counted(
    tmp_path: Path, policy: str, training: int, told: int
) -> None:
    """Else its silence would be a function of the noised number, for which nobody is charged."""
    site = GatedSite.make(tmp_path, policy)
    study = counted(site, told, training, decided=False)
    assert (told_for(site, study), site.charges(), site.record(study).state) == ([], [], "awaiting")
    site.sweep()
    assert [message for message in site.sent() if isinstance(message, Approval)] == []


def test_a_person_is_told_why_the_policy_does_not_answer_and_answers(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, TEN)
    study = counted(site, told=44, decided=False)
    shown = {entry["digest"]: entry for entry in studies_of(open_records(site.paths), _policy(site), DAY)}
    assert "also where nothing leaves and nothing is charged" in shown[study.digest]["explanation"]
    site.decide(study, "approved")
    assert (told_for(site, study), len(site.charges())) == ([44], 1)


def test_a_person_is_warned_of_a_number_near_the_hospital_s_minimum(tmp_path: Path) -> None:
    """An answer tells that the exact number is at least 10, which 10 + ln(10000) / 0.5 = 28.4 would leave open."""
    site = GatedSite.make(tmp_path, TEN.replace("automatic", "person"))
    near, clear = counted(site, 28, name="near", decided=False), counted(site, 29, name="clear", decided=False)
    assert "not far enough above this hospital's 10" in site.record(near).detail
    assert site.record(clear).detail == ""


def test_a_study_does_not_choose_how_near_is_near(tmp_path: Path) -> None:
    """Without private training no policy bounds a study's delta; the policy's own, 1e-4, is taken then."""
    site = GatedSite.make(tmp_path, TEN + "dp_required: false\n")
    study = counted(site, told=28, decided=False, privacy={"epsilon": None, "delta": 0.9})
    assert told_for(site, study) == []
    assert "not far enough above" in site.record(study).detail


def test_exact_numbers_told_before_and_after_are_compared_as_ever(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, TEN)
    counted(site, told=40, name="noised")
    exact = study_of(name="exact")
    site.join(exact)
    assert told_for(site, exact) == [40]
    narrower = study_of(name="narrower")
    site.propose(narrower)
    site.sweep()
    site.count_cohort(narrower, training=39)
    site.sweep()
    assert told_for(site, narrower) == []


HASHES = {"chain": "", "follows": None}


@settings(max_examples=6, deadline=None)
@given(one=st.integers(30, 60), other=st.integers(30, 60), mechanism=st.sampled_from(["dp-sgd", "no noise"]))
def test_what_leaves_follows_from_the_told_number_and_not_from_the_exact_one(
    one: int, other: int, mechanism: str
) -> None:
    """Two hospitals with other numbers of patients, whose noise makes them tell the same one."""
    left = []
    for exact in (one, other):
        with TemporaryDirectory() as folder:
            site = GatedSite.make(Path(folder), PERMISSIVE_POLICY + "dp_required: false\n")
            private: dict[str, Any] = {} if mechanism == "dp-sgd" else {"privacy": {"epsilon": None}}
            study = counted(site, told=45, training=exact, **private)
            site.hand_over(site.give(site.task(study)))
            site.sweep()
            left.append([{**m.model_dump(mode="json", by_alias=True), **HASHES} for m in site.everything_sent()])
    assert left[0] == left[1]
    assert [message["weight"] for message in left[0] if "weight" in message] == [45.0]


def test_who_is_left_out_for_a_spent_budget_is_neither_counted_nor_charged(tmp_path: Path) -> None:
    limits = "lifetime_epsilon: 5\nmaximum_epsilon: 4\n"
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + limits)
    counted(site, told=41, name="first")
    second = counted(site, told=62, training=100, name="second")
    assert told_for(site, second) == [62]  # of 60 who train: with 100 it would be out of the noise's reach
    before = _charged(site)
    assert {before[who] for who in patients_of(0, 40)} == {before[patients_of(0, 1)[0]]}
    far = counted(site, told=100, training=100, name="third", privacy={"count_epsilon": 1.9})
    assert site.record(far).state == "awaiting"  # nobody can afford it, so nobody is counted
    assert _charged(site) == before


def test_the_number_without_private_training_is_bounded_and_charged(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "dp_required: false\nmaximum_epsilon: 2\n")
    study = counted(site, told=44, privacy={"epsilon": None})
    charge = next(m for m in site.everything_sent() if isinstance(m, LedgerCharge))
    assert charge.unprotected
    assert [(e.mechanism, e.noise_multiplier) for e in charge.charged["training"]] == [("discrete-laplace", 2.0)]
    assert any("The number of training patients: epsilon 0.5, charged." in line for line in _lines(site, study))
    too_much = counted(site, told=44, name="large", privacy={"epsilon": None, "count_epsilon": 2.5})
    assert site.record(too_much).reason is Reason.POLICY
    assert "privacy.count_epsilon 2.5 is above `maximum_epsilon` 2." in site.record(too_much).detail


@pytest.mark.parametrize(
    ("epsilon", "why"),
    [(None, "would leave exact"), (0.6, "privacy.count_epsilon 0.6 is above"), (0.5, None)],
)
def test_a_policy_may_demand_noise(tmp_path: Path, epsilon: float | None, why: str | None) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY + "maximum_count_epsilon: 0.5\n")
    study = study_of(privacy=NOISED | {"count_epsilon": epsilon})
    site.propose(study)
    site.sweep()
    record = site.record(study)
    assert record.reason is (None if why is None else Reason.POLICY)
    assert why is None or why in record.detail


def test_who_decides_reads_which_number_leaves_and_how_it_is_noised(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERMISSIVE_POLICY.replace("automatic", "person"))
    lines = _lines(site, counted(site, told=43))
    how = "(noised here (two-sided geometric, scale 2; epsilon 0.5) and charged to them)"
    assert any(how in line for line in lines)
    assert any("43 training patients, noised (the exact number stays here)" in line for line in lines)
    exact = study_of(name="exact")
    site.join(exact)
    assert any("(exact, neither noised nor charged)" in line for line in _lines(site, exact))


def _policy(site: GatedSite) -> Any:
    return load_policy(site.settings.policy)


def _lines(site: GatedSite, study: StudySpec) -> list[str]:
    with closing(open_records(site.paths)) as database:
        return list(lines_of(summary_of(database, site.record(study), _policy(site))))


def _charged(site: GatedSite) -> dict[str, Any]:
    with closing(open_records(site.paths)) as database:
        return dict(charged_patients(database, accounts(database, _policy(site))))
