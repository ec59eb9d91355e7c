"""The researcher's part of readiness: leaves only when asked for, a few times, and the same whatever was counted."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.digest import hex_of
from protocol.message import Message
from protocol.messages import StudyClosed
from protocol.readiness import HOURS_A_WEEK, MOST_REPORTS, ReadinessReport
from protocol.study import StudySpec
from site_node.candidate import CohortFigures, write_cohort_figures
from site_node.errors import SettingsError
from site_node.governance.egress import egress_entries
from site_node.governance.holding import drain, resume
from site_node.governance.records import open_records
from site_node.governance.telling_readiness import ask_as_person, hours_a_week
from site_node.machine_figures import MACHINE_SUFFIX, MachineFigures, machine_path, write_machine_figures
from site_node.orders import WorkOrder, read_order, readiness_task_id
from site_node.training_hours import TrainHours
from tests.fakes.gated_site import GatedSite, study_of

PERSON = "approval: person\nmodalities: any\nnetworks: any\n"
ALWAYS = f"{PERSON}tell_readiness: always\n"
STUDY = study_of()


def asked(site: GatedSite, study: StudySpec = STUDY) -> int:
    with closing(open_records(site.paths)) as database:
        return ask_as_person(database, study.digest, site.now)


def ordered(site: GatedSite, number: int = 1, study: StudySpec = STUDY) -> WorkOrder | None:
    return read_order(site.paths, readiness_task_id(study.digest, number))


def measure(site: GatedSite, number: int = 1, study: StudySpec = STUDY, **more: Any) -> None:
    """Hand the machine's figures over, as the worker does."""
    found = MachineFigures(study_digest=study.digest, number=number, labels="found", class_names="some", device="cpu")  # type: ignore[arg-type]
    write_machine_figures(site.paths, found.model_copy(update={"stand_ins": 100, "minutes_a_round": 20, **more}))
    site.sweep()


def told(site: GatedSite) -> list[ReadinessReport]:
    return [message for message in site.everything_sent() if isinstance(message, ReadinessReport)]


def proposed(folder: Path, policy: str = PERSON) -> GatedSite:
    site = GatedSite.make(folder, policy)
    site.propose(STUDY)
    site.sweep()
    return site


def test_by_itself_a_site_tells_nothing_and_measures_nothing(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    site.count_cohort(STUDY)
    measure(site)  # unasked for
    assert (told(site), ordered(site)) == ([], None)
    assert not machine_path(site.paths, STUDY.digest).exists()


def test_a_person_lets_one_report_leave_that_stands_in_the_egress_ledger(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    assert asked(site) == 1
    site.sweep()
    order = ordered(site)
    assert order is not None
    assert (order.kind, order.recount, order.study_digest) == ("readiness", 1, STUDY.digest)
    measure(site)
    (report,) = told(site)
    assert (report.site, report.study_digest, report.number) == ("st-anna", STUDY.digest, 1)
    assert (report.policy, report.tasks, report.train_hours) == ("allows", "taken", HOURS_A_WEEK)
    assert (report.labels, report.class_names, report.minutes_a_round) == ("found", "some", 20)
    assert report.epsilon == pytest.approx(4.0, rel=0.02)
    assert ordered(site) is None
    assert not list(site.paths.cohorts.glob(f"*{MACHINE_SUFFIX}"))
    with closing(open_records(site.paths)) as database:
        entries = [entry for entry in egress_entries(database) if entry["kind"] == "wardround.readiness/1"]
    assert [entry["study_digest"] for entry in entries] == [STUDY.digest]
    site.sweep()
    assert len(told(site)) == 1


def all_said(folder: Path, policy: str, counted: Any, *, by_person: bool) -> list[Message]:
    """Return what leaves of a study whose cohort was counted so; None: not at all."""
    site = proposed(folder, policy)
    if counted is not None:
        counted(site)
        site.sweep()
    if by_person:
        asked(site)
        site.sweep()
    measure(site)
    return [message for message in site.everything_sent() if isinstance(message, ReadinessReport)]


@pytest.mark.parametrize("policy", [PERSON, ALWAYS])
def test_the_same_leaves_whatever_was_counted(tmp_path: Path, policy: str) -> None:
    def too_few(site: GatedSite) -> None:
        write_cohort_figures(site.paths, CohortFigures(study_digest=STUDY.digest, problem="too-few-patients"))  # type: ignore[arg-type]

    cohorts: list[Any] = [
        None,
        lambda site: site.count_cohort(STUDY, training=40),
        lambda site: site.count_cohort(STUDY, training=4000, held_out=0),
        too_few,
    ]
    by_person = policy == PERSON
    said = [
        [message.canonical_bytes() for message in all_said(tmp_path / str(n), policy, cohort, by_person=by_person)]
        for n, cohort in enumerate(cohorts)
    ]
    assert len(said[0]) == 1
    assert said == said[:1] * 4


def test_a_policy_may_tell_by_itself_once_and_then_without_the_site_s_words(tmp_path: Path) -> None:
    site = proposed(tmp_path, ALWAYS)
    measure(site)
    (report,) = told(site)
    assert (report.labels, report.class_names, report.device) == ("not-told", "not-told", "cpu")
    site.sweep()
    assert ordered(site, 2) is None


def test_a_person_who_asks_for_what_the_policy_began_tells_all(tmp_path: Path) -> None:
    site = proposed(tmp_path, ALWAYS)
    assert asked(site) == 1
    measure(site)
    assert [report.labels for report in told(site)] == ["found"]


def test_a_study_is_told_of_a_few_times_and_never_more(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    for number in range(1, MOST_REPORTS + 1):
        assert asked(site) == asked(site) == number  # one that is on its way is not asked for twice
        site.sweep()
        measure(site, number)
    with pytest.raises(SettingsError, match="as often as may be"):
        asked(site)
    assert [report.number for report in told(site)] == [1, 2, 3]


def test_figures_of_an_earlier_report_do_not_answer_a_later_one(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    asked(site)
    site.sweep()
    measure(site, number=2)
    assert told(site) == []
    measure(site, number=1)
    assert len(told(site)) == 1


@pytest.mark.parametrize("content", [b"{}", b"x" * 10_000, b'{"patients": 12}'])
def test_what_is_no_form_of_figures_is_taken_away_and_made_again(tmp_path: Path, content: bytes) -> None:
    site = proposed(tmp_path)
    asked(site)
    site.sweep()
    machine_path(site.paths, STUDY.digest).write_bytes(content)
    site.sweep()
    assert told(site) == []
    assert not machine_path(site.paths, STUDY.digest).exists()
    assert ordered(site) is not None


def test_nothing_is_told_of_a_study_that_is_unknown_refused_or_over(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    with pytest.raises(SettingsError, match="only while"):
        asked(site, study_of(name="another"))
    asked(site)
    site.decide(STUDY, "refused")
    site.count_cohort(STUDY)
    site.sweep()
    assert site.record(STUDY).state == "refused"
    measure(site)
    assert (told(site), ordered(site)) == ([], None)
    with pytest.raises(SettingsError, match="only while"):
        asked(site)


def test_a_study_that_the_policy_refuses_is_told_of_to_nobody(tmp_path: Path) -> None:
    site = proposed(tmp_path, f"{ALWAYS}maximum_epsilon: 1\n")
    measure(site)
    assert (site.record(STUDY).state, told(site)) == ("refused", [])


def test_a_closed_study_s_request_is_dropped(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    asked(site)
    site.post(StudyClosed(study_digest=STUDY.digest, state="stopped"))
    site.sweep()
    measure(site)
    assert (told(site), ordered(site)) == ([], None)


def test_a_site_that_drains_measures_nothing_new_and_says_so_of_what_was_measured(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    with closing(open_records(site.paths)) as database:
        drain(database)
        asked(site)
        site.sweep()
        assert ordered(site) is None
        resume(database)
        site.sweep()
        assert ordered(site) is not None
        drain(database)
    measure(site)
    assert [report.tasks for report in told(site)] == ["draining"]


def test_a_policy_that_changed_its_mind_is_told_as_an_objection(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    asked(site)
    site.settings.policy.write_text(f"{PERSON}maximum_epsilon: 1\n")
    site.sweep()
    measure(site)
    assert [report.policy for report in told(site)] == ["objects"]


def test_a_gate_that_is_killed_after_it_told_tells_no_second_time(tmp_path: Path) -> None:
    site = proposed(tmp_path)
    asked(site)
    site.sweep()

    def die(step: str) -> None:
        if step == "readiness told":
            raise KeyboardInterrupt

    site.checkpoint = die
    with pytest.raises(KeyboardInterrupt):
        measure(site)
    site.gate.close()
    site.checkpoint = lambda step: None
    site.start()
    site.sweep()
    assert len(told(site)) == 1
    assert not list(site.paths.cohorts.glob(f"{hex_of(STUDY.digest)}{MACHINE_SUFFIX}"))


def test_hours_of_a_week_are_counted_over_midnight_and_by_days() -> None:
    assert hours_a_week(None) == 168
    assert hours_a_week(TrainHours(hours="20:00-06:00")) == 70
    assert hours_a_week(TrainHours(hours="08:00-08:30", days=("mon", "tue"))) == 1
    assert hours_a_week(TrainHours(hours="22:00-23:15", days=("sat", "sun"))) == 3
