"""Held-out patients judged un-noised: how few, which groups, and whether another study trained on them."""

from pathlib import Path
from typing import Any

import pytest

from protocol.study import StudySpec
from site_node.budget_report import sentences_of
from site_node.governance.ledger_entries import GapEntry, append_entry, ledger_entries
from site_node.governance.records import open_records
from site_node.sqlite import transaction
from tests.fakes.gated_site import HELD_OUT, GatedSite, patients_of, study_of
from tests.fakes.gated_site import PERMISSIVE_POLICY as SMALL

AUTOMATIC = "approval: automatic\nmodalities: any\n"  # all else as in the template: ten, and ten held out
NOISED = {"noise_epsilon": 0.1, "at_most": 4}


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, AUTOMATIC)


def propose(
    site: GatedSite, name: str, training: int = 40, held_out: int = 20, first: int = 0, **more: Any
) -> StudySpec:
    study = study_of(name=name, evaluation=more.pop("evaluation", {}))
    site.propose(study)
    site.sweep()
    site.count_cohort(study, training, held_out, first=first, **more)
    site.sweep()
    return study


def waits(site: GatedSite, study: StudySpec) -> str:
    """Return why a study waits; nothing was told of it."""
    assert (site.record(study).state, site.answers(study)) == ("awaiting", [])
    return site.record(study).detail


def test_one_held_out_patient_is_not_judged_un_noised_by_the_policy(site: GatedSite) -> None:
    study = propose(site, "one", held_out=1)
    assert "judges fewer than 10" in waits(site, study)
    site.decide(study, "approved")
    assert [answer.evaluates for answer in site.answers(study)] == [True]


def test_ten_are_enough_and_noised_ones_may_be_fewer(site: GatedSite) -> None:
    assert site.answers(propose(site, "ten", held_out=10))
    assert site.answers(propose(site, "noised", training=40, held_out=3, evaluation=NOISED))


def test_each_split_is_large_enough_by_itself(site: GatedSite, tmp_path: Path) -> None:
    """21 held out, one of them for validation, whose label and score the validation histogram would be."""
    study = study_of()
    site.propose(study)
    site.sweep()
    site.count_cohort(study, 40, 21, validation=patients_of(HELD_OUT, 1))
    site.sweep()
    assert waits(site, study)
    unjudged = study_of(name="test-only", evaluation={"splits": ["test"]})
    site.propose(unjudged)
    site.sweep()
    site.count_cohort(unjudged, 40, 21, validation=patients_of(HELD_OUT, 1))
    site.sweep()
    assert site.answers(unjudged)


def test_the_minimum_is_the_policy_s_to_set(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, SMALL.replace("minimum_held_out_patients: 1", "minimum_held_out_patients: 7"))
    assert "judges fewer than 7 patients" in waits(site, propose(site, "six", held_out=6))
    assert site.answers(propose(site, "seven", held_out=7))


def test_held_out_sets_that_differ_by_one_patient_are_compared(site: GatedSite) -> None:
    assert site.answers(propose(site, "to-80-years", held_out=20))
    assert "fewer than 10 patients apart" in waits(site, propose(site, "to-79-years", held_out=19))


def test_nobody_trains_is_a_figure_of_those_who_match(site: GatedSite) -> None:
    """One patient matches and 0 is told: whether the one is there would be seen by comparing with nobody."""
    assert "fewer than 10 patients apart" in waits(site, propose(site, "one-matches", training=1))
    assert "fewer than 10 patients apart" in waits(site, propose(site, "nobody-matches", training=0))


def test_nobody_trains_is_compared_with_the_numbers_told_before(site: GatedSite) -> None:
    assert site.answers(propose(site, "both-classes", training=40))
    study = study_of(name="one-class-but-one")  # 39 of them are all of one class, so 0 would be told
    site.propose(study)
    site.sweep()
    site.count_cohort(study, 0, 20, withheld=patients_of(0, 39))
    site.sweep()
    assert waits(site, study)


def test_what_was_told_as_0_is_no_number_that_anybody_knows(site: GatedSite) -> None:
    """A person lets 0 be told of five patients. 45 with them, then 40 without, would still tell of the five."""
    five = propose(site, "five", training=5)
    site.decide(five, "approved")
    assert [answer.training_patients for answer in site.answers(five)] == [0]
    assert site.answers(propose(site, "with-them", training=45))
    assert waits(site, propose(site, "without-them", training=40, first=5))


def test_who_was_trained_on_is_not_held_out_un_noised_by_the_policy(site: GatedSite) -> None:
    assert site.answers(propose(site, "one", training=40, held_out=0))
    again = held_out_again(site, "two")
    assert "another study trained" in waits(site, again)
    site.decide(again, "approved")
    assert len(site.answers(again)) == 1


def held_out_again(site: GatedSite, name: str, **more: Any) -> StudySpec:
    """Propose a study that trains on others and holds out the first 20 patients of the study before."""
    study = study_of(name=name, **more)
    site.propose(study)
    site.sweep()
    site.count_cohort(study, 40, 20, first=500, held_out_from=0)
    site.sweep()
    return study


def test_with_noise_or_where_the_policy_says_so_they_are_held_out(site: GatedSite) -> None:
    propose(site, "one", training=40, held_out=0)
    assert site.answers(held_out_again(site, "noised", evaluation=NOISED))
    site.with_policy(AUTOMATIC + "hold_out_trained: always\n")
    assert site.answers(held_out_again(site, "allowed"))


def test_a_lost_charge_may_have_been_anybody_s(site: GatedSite) -> None:
    propose(site, "one", training=40, held_out=0)
    [charge] = site.charges()
    gap = GapEntry(
        study_digest="sha256:" + "1" * 64,
        head=charge.head,
        delta=charge.delta,
        charged=dict(charge.charged),
        unprotected=False,
    )
    with transaction(open_records(site.paths)) as database:
        append_entry(database, gap)
    assert "another study trained" in waits(site, propose(site, "later", training=40, first=5000, held_out=20))


def test_un_noised_held_out_patients_stand_in_the_ledger(site: GatedSite) -> None:
    propose(site, "plain")
    entries = ledger_entries(open_records(site.paths))
    assert [(entry.patients, entry.event is None) for entry in entries] == [("training", False), ("held-out", True)]
    found = site.budget()
    [study] = found["studies"]
    assert 3.5 < study["epsilon"] <= 4
    assert (study["unprotected"], study["held_out_unprotected"]) == (False, True)
    assert "held-out patients: UNPROTECTED" in "\n".join(sentences_of(found))
    [charge] = site.charges()
    assert (charge.unprotected, list(charge.charged)) == (False, ["training"])


def test_noised_held_out_patients_are_not_called_unprotected(site: GatedSite) -> None:
    propose(site, "noised", evaluation=NOISED)
    found = site.budget()
    assert [study["held_out_unprotected"] for study in found["studies"]] == [False]


def test_a_person_reads_what_a_policy_would_have_held_up(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, AUTOMATIC.replace("automatic", "person"))
    assert "fewer than 10" in waits(site, propose(site, "one", held_out=1))
    assert waits(site, propose(site, "plain", training=40, held_out=20, first=900)) == ""
