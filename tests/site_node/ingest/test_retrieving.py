"""A run of fetching against a PACS in memory: what each fault costs, and that it never costs the run."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from protocol.cohort_terms import Cohort
from site_node.cli import app
from site_node.enrolment import create_site
from site_node.errors import PacsError, PacsRefusedError
from site_node.ingest.intake import Room
from site_node.ingest.listener_paths import ListenerPaths
from site_node.ingest.pacs import Level
from site_node.ingest.planning import UNKNOWN
from site_node.ingest.retrieval_journal import Entry, RetrievalJournal
from site_node.ingest.retrieval_receipt import Receipt
from site_node.ingest.retrieval_run import journal_path
from site_node.ingest.retrieving import Ended, Retrieval
from site_node.ingest.shelf import Shelf
from site_node.ingest.wanted import Listed, Wanted
from site_node.pacs_settings import PacsSettings
from tests.fakes.dicom import make_dataset, uid_of
from tests.fakes.fake_pacs import FakeClock, FakePacs

PIXELS = np.full((4, 4), 7, dtype=np.uint16)
EVERYTHING = Wanted(criteria=Cohort())


@dataclass
class Bench:
    """A PACS with so many patients, one imaging study of two instances each, and what a run needs."""

    folder: Path
    clock: FakeClock
    pacs: FakePacs
    retrieval: Retrieval

    def run(self, wanted: Wanted = EVERYTHING, **changes: Any) -> tuple[Ended, list[Entry]]:
        retrieval = replace(self.retrieval, **changes)
        ended = retrieval.run(wanted)
        return ended, retrieval.journal.entries(ended.run)

    @property
    def here(self) -> int:
        return len(list((self.folder / "images").rglob("*.dcm")))


def fill(pacs: FakePacs, patients: int, **headers: Any) -> None:
    for number in range(patients):
        for instance in ("1", "2"):
            dataset = make_dataset(
                PIXELS, f"P{number}", instance, AccessionNumber=f"A{number}", StudyDate="20260110", **headers
            )
            file = BytesIO()
            dataset.save_as(file, enforce_file_format=True)
            pacs.instances.append((dataset, file.getvalue()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    clock = FakeClock()
    pacs = FakePacs(clock)
    fill(pacs, 3)
    journal = RetrievalJournal(tmp_path / "journal.sqlite")
    room = Room(tmp_path / "arriving", 1, 1 << 20, free_bytes=lambda _: 1 << 30)
    shelf = Shelf.at(tmp_path / "images", tmp_path / "quarantine", room, "pacs")
    settings = PacsSettings(host="pacs")
    return Bench(tmp_path, clock, pacs, Retrieval(settings, pacs, journal, shelf, clock))


def test_everything_is_fetched_once_and_a_second_run_fetches_nothing(bench: Bench) -> None:
    ended, entries = bench.run()
    assert ended.outcome == "complete"
    assert [(entry.state, entry.here, entry.listed, entry.announced) for entry in entries] == [("fetched", 2, 2, 2)] * 3
    assert bench.here == 6
    ended, entries = bench.run()
    assert ended.outcome == "complete"
    assert all(entry.already for entry in entries)
    assert len(bench.pacs.sent) == 6


def test_a_new_instance_in_a_fetched_imaging_study_is_fetched_alone(bench: Bench) -> None:
    bench.run()
    fill(bench.pacs, 1)
    dataset, _ = bench.pacs.instances[-1]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid_of("new")
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    bench.pacs.instances = [*bench.pacs.instances[:-2], (dataset, file.getvalue())]
    _, entries = bench.run()
    assert [entry.already for entry in entries] == [False, True, True]
    assert bench.pacs.sent[6:] == [str(uid_of("new"))]
    assert bench.here == 7


def test_one_imaging_study_that_always_fails_is_a_line_and_the_others_are_fetched(bench: Bench) -> None:
    def fail(study: str) -> None:
        if study == uid_of("P1/study"):
            raise PacsError("the PACS coughed")

    bench.pacs.before_fetch = fail
    ended, entries = bench.run()
    assert ended.outcome == "some-failed"
    assert [entry.state for entry in entries] == ["fetched", "failed", "fetched"]
    assert (entries[1].reason, entries[1].attempts) == ("the PACS coughed", 4)
    assert bench.clock.seconds == 2 + 4 + 8  # the rests between four attempts
    assert Receipt(ended, entries).exit_status == 3


def test_a_fault_that_lasts_is_not_tried_again(bench: Bench) -> None:
    def fail(study: str) -> None:
        raise PacsError("never", lasting=True)

    bench.pacs.before_fetch = fail
    _, entries = bench.run()
    assert [entry.attempts for entry in entries] == [1, 1, 1]
    assert bench.clock.seconds == 0


def test_what_the_next_attempt_brings_counts(bench: Bench) -> None:
    lost = str(uid_of("P2/2"))
    bench.pacs.loses = lambda instance: instance == lost and bench.clock.seconds < 5
    ended, entries = bench.run()
    assert ended.outcome == "complete"
    assert [entry.attempts for entry in entries] == [1, 1, 3]
    assert sorted(bench.pacs.sent) == sorted(str(d.SOPInstanceUID) for d, _ in bench.pacs.instances)  # none twice


def test_instances_that_never_come_are_counted_in_the_reason(bench: Bench) -> None:
    bench.pacs.loses = lambda instance: instance == uid_of("P2/2")
    _, entries = bench.run()
    assert entries[2].reason == "1 of 2 instances did not come"
    assert (entries[2].here, entries[2].listed) == (1, 2)


def test_an_imaging_study_that_vanishes_after_it_was_found_is_a_line(bench: Bench) -> None:
    def vanish(level: Level, keys: Mapping[str, str]) -> None:
        if level == "SERIES" and keys["StudyInstanceUID"] == uid_of("P0/study"):
            bench.pacs.instances = [one for one in bench.pacs.instances if one[0].PatientID != "P0"]
            raise PacsError("the PACS no longer has it", lasting=True)

    bench.pacs.before_find = vanish
    _, entries = bench.run()
    assert [entry.state for entry in entries] == ["failed", "fetched", "fetched"]


def test_a_pacs_that_goes_away_in_mid_run_is_waited_for_and_costs_no_attempt(bench: Bench) -> None:
    def go_away(study: str) -> None:
        if study == uid_of("P1/study") and bench.clock.seconds == 0:
            bench.pacs.away_until = 600.0
            bench.pacs._be_there()

    bench.pacs.before_fetch = go_away
    ended, entries = bench.run()
    assert ended.outcome == "complete"
    assert [entry.attempts for entry in entries] == [1, 1, 1]
    assert 600 <= bench.clock.seconds < 700


def test_a_pacs_that_stays_away_ends_the_run_which_goes_on_later(bench: Bench) -> None:
    bench.pacs.away_until = 10_000.0
    ended, entries = bench.run()
    assert ended.outcome == "pacs-away"
    assert bench.clock.seconds >= 1800
    assert Receipt(ended, entries).exit_status == 4
    bench.clock.seconds = 10_000.0
    assert bench.run()[0].outcome == "complete"


def test_a_pacs_that_refuses_us_ends_the_run_at_once(bench: Bench) -> None:
    def refuse(level: Level, keys: Mapping[str, str]) -> None:
        raise PacsRefusedError("the PACS refuses our credentials")

    bench.pacs.before_find = refuse
    ended, entries = bench.run()
    assert ended.outcome == "refused"
    assert str(ended.error) == "the PACS refuses our credentials"
    assert Receipt(ended, entries).exit_status == 1
    assert len(bench.pacs.asked) == 1


def test_a_run_that_is_stopped_goes_on_where_it_was(bench: Bench) -> None:
    bench.clock.stop_after = 90.0
    slow = PacsSettings(host="pacs", studies_per_minute=1)
    ended, entries = bench.run(settings=slow)
    assert ended.outcome == "stopped"
    assert [entry.state for entry in entries] == ["fetched", "fetched", "planned"]
    bench.clock.stop_after = float("inf")
    ended, entries = bench.run(settings=slow)
    assert ended.outcome == "complete"
    assert [entry.already for entry in entries] == [True, True, False]
    assert len(bench.pacs.sent) == 6


def test_instances_come_at_the_pace_that_is_allowed(bench: Bench) -> None:
    bench.run(settings=PacsSettings(host="pacs", instances_per_minute=30))
    assert bench.clock.seconds == 5 * 2.0  # the first need not wait


def test_outside_its_hours_a_run_waits_or_ends(bench: Bench) -> None:
    nights = PacsSettings(host="pacs", hours="19-6")
    ended, _ = bench.run(settings=nights, wait_for_hours=False)
    assert ended.outcome == "outside-hours"
    assert bench.here == 0
    ended, _ = bench.run(settings=nights)
    assert ended.outcome == "complete"
    assert bench.clock.now() == datetime(2026, 3, 2, 19, 0, 0)


def test_a_full_disk_ends_the_run_and_nothing_is_half_there(bench: Bench) -> None:
    shelf = bench.retrieval.shelf
    full = replace(shelf, room=replace(shelf.room, free_bytes=lambda _: 0))
    ended, entries = bench.run(shelf=full)
    assert ended.outcome == "disk-full"
    assert Receipt(ended, entries).exit_status == 4
    assert bench.here == 0
    assert list((bench.folder / "arriving").iterdir()) == []
    assert bench.run()[0].outcome == "complete"


def test_a_damaged_instance_is_quarantined_once_and_not_asked_for_again(bench: Bench) -> None:
    dataset, data = bench.pacs.instances[0]
    bench.pacs.instances[0] = (dataset, data[:-5])
    ended, entries = bench.run()
    assert ended.outcome == "complete"
    assert entries[0].reason == "1 of 2 instances came and are in quarantine"
    assert (entries[0].here, entries[0].quarantined) == (1, 1)
    bench.run(again=True)
    assert len(bench.pacs.sent) == 6


def test_criteria_keep_back_what_the_pacs_says_to_be_outside_them(bench: Bench) -> None:
    for dataset, _ in bench.pacs.instances[2:4]:
        dataset.PatientSex = "M"
    for dataset, _ in bench.pacs.instances[4:]:
        dataset.PatientSex = dataset.PatientAge = ""  # the PACS does not say: the index will decide
    _, entries = bench.run(Wanted(criteria=Cohort(sex=["F"], age_min_years=40)))
    assert [entry.subject for entry in entries] == [uid_of("P0/study"), uid_of("P2/study")]


def test_only_series_of_the_wanted_body_part_are_fetched(bench: Bench) -> None:
    dataset, _ = bench.pacs.instances[1]
    dataset.SeriesInstanceUID, dataset.BodyPartExamined = uid_of("knee"), "KNEE"
    _, entries = bench.run(Wanted(criteria=Cohort(body_part=["chest"])))
    assert [(entry.here, entry.listed) for entry in entries] == [(1, 1), (2, 2), (2, 2)]
    _, entries = bench.run()  # another study wants all of it; of two patients all of it is here
    assert [entry.already for entry in entries] == [False, True, True]
    assert len(bench.pacs.sent) == 6


def test_what_another_question_fetched_was_here_already(bench: Bench) -> None:
    bench.run(Wanted(criteria=None, listed=(Listed(1, "A2"),)))
    ended, entries = bench.run(Wanted(criteria=Cohort(modality=["DX"])))
    counts = Receipt(ended, entries).counts()
    assert (counts["fetched"], counts["already_here"], counts["instances_here"]) == (2, 1, 6)
    assert bench.retrieval.journal.stored_so_far() == 6
    ended, entries = bench.run(again=True)
    counts = Receipt(ended, entries).counts()
    assert (counts["fetched"], counts["already_here"], bench.retrieval.journal.stored_so_far()) == (0, 3, 6)


def test_a_list_fetches_what_it_names_and_says_what_the_pacs_does_not_know(bench: Bench) -> None:
    listed = (Listed(1, "A2"), Listed(2, "NONE"), Listed(3, "A*", "it holds a wildcard"))
    ended, entries = bench.run(Wanted(listed=listed))
    assert ended.outcome == "some-failed"
    assert bench.here == 2
    told = {(entry.line, entry.state, entry.reason) for entry in entries}
    assert told == {(1, "fetched", None), (2, "failed", UNKNOWN), (3, "failed", "it holds a wildcard")}
    assert all(keys.get("AccessionNumber") != "A*" for _, keys in bench.pacs.asked)


def test_an_answer_cut_short_is_asked_for_in_halves_of_its_days(bench: Bench) -> None:
    for number, (dataset, _) in enumerate(bench.pacs.instances):
        dataset.StudyDate = f"202601{5 + 10 * (number // 2):02}"
    bench.pacs.answers_at_most = 1
    _, entries = bench.run(Wanted(criteria=Cohort(), since=date(2026, 1, 1), until=date(2026, 1, 31)))
    assert [entry.state for entry in entries] == ["fetched"] * 3


def test_an_answer_cut_short_that_cannot_be_halved_is_loud(bench: Bench) -> None:
    bench.pacs.answers_at_most = 1
    ended, entries = bench.run()
    assert ended.outcome == "query-not-answered"
    assert "--from" in str(ended.error)
    assert Receipt(ended, entries).exit_status == 1


def test_the_receipt_names_nobody_unless_asked(bench: Bench) -> None:
    ended, entries = bench.run(Wanted(listed=(Listed(1, "A2"), Listed(2, "SECRET"))))
    receipt = Receipt(ended, entries)
    quiet = str(receipt.as_json()) + "\n".join(receipt.as_text())
    loud = str(receipt.as_json(show_identifiers=True)) + "\n".join(receipt.as_text(show_identifiers=True))
    for identifier in ("A2", "SECRET", str(uid_of("P2/study"))):
        assert identifier not in quiet
        assert identifier in loud
    assert receipt.counts() == {
        "imaging_studies": 2, "fetched": 1, "already_here": 0, "failed": 1, "not_yet": 0,
        "instances_listed": 2, "instances_here": 2, "instances_quarantined": 0,
    }  # fmt: skip


def test_a_receipt_of_nothing_does_not_say_that_all_is_here(bench: Bench) -> None:
    receipt = Receipt(*bench.run(Wanted(criteria=Cohort(modality=["CT"]))))
    assert receipt.exit_status == 0
    assert next(receipt.as_text()) == "The PACS has nothing of what is wanted."


def test_received_counts_what_was_fetched(tmp_path: Path) -> None:
    site = tmp_path / "site"
    settings = create_site(site, "st-anna", "https://hub.example.org", [])
    for instances in (190, 0, 3):
        with closing(RetrievalJournal(journal_path(settings.paths))) as journal:
            journal.stored(instances)
    output = CliRunner().invoke(app, ["received", str(site)]).output
    assert "193 objects fetched from the PACS and stored" in output
    assert "Sent to the listener, which has not run:\n0 objects stored" in output
    counts = ListenerPaths.of(settings.paths).counts
    counts.parent.mkdir(parents=True)
    counts.write_text('{"stored": 5}', encoding="utf-8")
    output = CliRunner().invoke(app, ["received", str(site)]).output
    assert "Sent to the listener, as of 20" in output
    assert "5 objects stored" in output
