"""Exact numbers of training patients: which a policy may let out by itself, and which a person has to see first."""

from itertools import combinations
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.messages import Approval
from protocol.signing import SigningKey
from protocol.study import StudySpec
from site_node.governance.approval import Decision, record_decision
from site_node.governance.policy import load_policy
from site_node.governance.records import open_records, study_record
from site_node.governance.told_figures import smallest_new_group
from site_node.overview import studies_of
from tests.fakes.gated_site import DAY, PERMISSIVE_POLICY, GatedSite, study_of

TEN = PERMISSIVE_POLICY.replace("minimum_patients: 1", "minimum_patients: 10")


@pytest.fixture
def hospital(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, TEN)


def propose(site: GatedSite, name: str, training: int, first: int = 0) -> StudySpec:
    """Propose a study whose criteria match so many patients, numbered from the first."""
    study = study_of(name=name)
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training=training, first=first)
    site.sweep()
    return study


def told(site: GatedSite, study: StudySpec) -> list[int]:
    """Return the numbers of training patients that the hub was told for a study."""
    return [m.training_patients for m in site.sent() if isinstance(m, Approval) and m.study_digest == study.digest]


def decide_as(site: GatedSite, study: StudySpec, word: Literal["approved", "refused"]) -> None:
    key = SigningKey.load_or_create(site.paths.identity_key)
    record_decision(open_records(site.paths), Decision(study.digest, word, "Dr Grey", site.now, None), key)
    site.sweep()


def test_a_study_that_differs_by_one_patient_is_not_answered_by_the_policy(hospital: GatedSite) -> None:
    assert told(hospital, propose(hospital, "to-80-years", 40)) == [40]
    narrower = propose(hospital, "to-79-years", 39)
    hospital.sweep()
    assert told(hospital, narrower) == []
    assert len(hospital.charges()) == 1


def test_the_administrator_reads_why_it_waits(hospital: GatedSite) -> None:
    propose(hospital, "to-80-years", 40)
    narrower = propose(hospital, "to-79-years", 39)
    policy = load_policy(hospital.settings.policy)
    shown = {entry["digest"]: entry for entry in studies_of(open_records(hospital.paths), policy, DAY)}
    assert shown[narrower.digest]["state"] == "awaiting"
    assert "fewer than 10 patients" in shown[narrower.digest]["explanation"]
    assert "wardround site approve" in shown[narrower.digest]["explanation"]


def test_what_a_person_approves_is_told_and_its_groups_hold_up_no_later_study(hospital: GatedSite) -> None:
    propose(hospital, "to-80-years", 40)
    narrower = propose(hospital, "to-79-years", 39)
    decide_as(hospital, narrower, "approved")
    assert told(hospital, narrower) == [39]
    record = study_record(open_records(hospital.paths), narrower.digest)
    assert record is not None
    assert (record.state, record.detail) == ("approved", "")
    assert told(hospital, propose(hospital, "with-new-patients", 60)) == [60]  # 20 new ones beside known groups


def test_the_same_patients_again_and_quite_other_ones_are_answered(hospital: GatedSite) -> None:
    for name, training, first in (("one", 40, 0), ("again", 40, 0), ("others", 12, 500), ("a-third-of-them", 14, 0)):
        assert told(hospital, propose(hospital, name, training, first)) == [training]


def test_three_studies_that_differ_pairwise_by_many_do_not_single_out_one(hospital: GatedSite) -> None:
    """40 patients, then 20 of them, then 19 of the others: 40 - 20 - 19 would tell of one."""
    propose(hospital, "all", 40)
    propose(hospital, "young", 20)
    assert told(hospital, propose(hospital, "old-but-one", 19, first=20)) == []


def test_figures_that_were_never_told_hold_nothing_up(hospital: GatedSite) -> None:
    hospital.with_policy(TEN.replace("automatic", "person"))
    decide_as(hospital, propose(hospital, "refused", 40), "refused")
    hospital.with_policy(TEN)
    assert told(hospital, propose(hospital, "later", 39)) == [39]


def test_a_person_sees_every_figure_where_a_person_approves(tmp_path: Path) -> None:
    hospital = GatedSite.make(tmp_path, TEN.replace("automatic", "person"))
    one, other = propose(hospital, "to-80-years", 40), propose(hospital, "to-79-years", 39)
    for study in (one, other):
        decide_as(hospital, study, "approved")
    assert (told(hospital, one), told(hospital, other)) == ([40], [39])


SETS = st.lists(st.frozensets(st.integers(0, 11), min_size=1), min_size=1, max_size=5)


@given(SETS)
def test_what_any_two_told_figures_have_apart_is_never_smaller_than_the_minimum(sets: list[frozenset[int]]) -> None:
    """The policy admits sets one by one; then no intersection or difference of any of them is small."""
    minimum, admitted = 3, list[frozenset[str]]()
    for numbers in sets:
        counted = frozenset(map(str, numbers))
        smallest = smallest_new_group(admitted, counted)
        if smallest is None or smallest >= minimum:
            admitted.append(counted)
    for one, other in combinations(admitted, 2):
        for group in (one & other, one - other, other - one):
            assert not 0 < len(group) < minimum


@given(SETS)
def test_a_set_that_was_told_tells_nothing_new(sets: list[frozenset[int]]) -> None:
    told_sets = [frozenset(map(str, numbers)) for numbers in sets]
    assert all(smallest_new_group(told_sets, again) is None for again in told_sets)
