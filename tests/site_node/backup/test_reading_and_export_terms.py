"""What readers did, and what copies of images may keep, come back with a site, to whom they belonged."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from site_node.backup.contents import READING, items
from site_node.backup.restoring import restore
from site_node.backup.writing import write_backup
from site_node.dicom.deidentification_policy import FILE_NAME
from site_node.exporting import load_deidentification_policy
from site_node.reading.records import Reading, give_reading, open_reading_records, readings_of, record_view, views_after
from site_node.reading.rooms import open_room, reading_folder, room_of
from site_node.settings import SitePaths, load_settings
from tests.fakes.dicom import make_hospital
from tests.fakes.reading_site import NOW, ReadingSite
from tests.site_node.backup.backed_up import KEY
from tests.site_node.reading.test_reading_api import held_out, study_of

STUDY = study_of()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hospital(tmp_path_factory.mktemp("images"), 30, size=16, split=held_out).folder


@pytest.fixture
def hospital(tmp_path: Path, images: Path) -> ReadingSite:
    return ReadingSite.make(tmp_path, images)


def read_a_case(site: ReadingSite, person: str) -> str:
    code = next(iter(open_room(site.settings, STUDY, "anna", NOW).cases))
    with open_reading_records(site.paths) as database:
        record_view(database, person, code, 0, 0, "shown", NOW)
        give_reading(database, Reading(STUDY.digest, code, person, ("clear",), 4, NOW))
    return code


def readers(paths: SitePaths) -> list[str]:
    with open_reading_records(paths) as database:
        assert [view["person"] for view in views_after(database, 0, 9)] == [
            reading.person for reading in readings_of(database, STUDY.digest)
        ]
        return [reading.person for reading in readings_of(database, STUDY.digest)]


def test_readings_views_rooms_and_codes_come_back_while_the_records_are_open(
    hospital: ReadingSite, tmp_path: Path
) -> None:
    code = read_a_case(hospital, "dora")
    readiness = reading_folder(hospital.paths) / "readiness"
    readiness.mkdir()
    (readiness / "aa.json").write_text("{}")  # made again whenever somebody asks
    with open_reading_records(hospital.paths):
        inventory = write_backup(hospital.settings, tmp_path / "b", KEY).inventory
    assert not [entry.name for entry in inventory.files if "readiness" in entry.name]
    restore(tmp_path / "new", tmp_path / "b", KEY, force=False)
    settings = load_settings(tmp_path / "new")
    room = room_of(settings, STUDY.digest)
    assert room is not None
    assert (code in room.cases, room.opened_by, readers(settings.paths)) == (True, "anna", ["dora"])
    kept = reading_folder(settings.paths)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (kept, kept / "rooms")} == {0o2700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.rglob("*") if path.is_file()} == {0o600}


def test_each_file_of_reading_is_read_before_what_it_rests_on(hospital: ReadingSite) -> None:
    read_a_case(hospital, "dora")
    names = [item.name.removeprefix(f"{READING}/") for item in items(hospital.paths, local_state=False)]
    digits = STUDY.digest.removeprefix("sha256:")
    wanted = ["records.sqlite", f"rooms/{digits}.study.json", f"rooms/{digits}.json", "case.key"]
    assert [name for name in names if name in wanted] == wanted
    assert reading_folder(hospital.paths) == hospital.paths.root / READING


def test_what_was_read_since_is_not_forgotten_not_even_by_force(hospital: ReadingSite, tmp_path: Path) -> None:
    read_a_case(hospital, "dora")
    write_backup(hospital.settings, tmp_path / "b", KEY)
    read_a_case(hospital, "emil")
    kept = restore(hospital.paths.root, tmp_path / "b", KEY, force=True).kept
    assert (len([name for name in kept if name.startswith(READING)]), readers(hospital.paths)) == (4, ["dora", "emil"])
    shutil.rmtree(reading_folder(hospital.paths))
    assert restore(hospital.paths.root, tmp_path / "b", KEY, force=True).kept == ()
    assert readers(hospital.paths) == ["dora"]


def test_a_folder_that_is_made_anew_is_its_parent_s_owner_s(
    hospital: ReadingSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_a_case(hospital, "dora")
    write_backup(hospital.settings, tmp_path / "b", KEY)
    shutil.rmtree(reading_folder(hospital.paths))
    given: dict[str, tuple[int, int]] = {}
    worker = hospital.paths.worker.stat()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.update({Path(path).name: (user, group)}))
    restore(hospital.paths.root, tmp_path / "b", KEY, force=True)
    of_reading = {"reading", "rooms", "records.sqlite", "case.key"}
    assert {name: given[name] for name in of_reading} == dict.fromkeys(of_reading, (worker.st_uid, worker.st_gid))


def test_an_export_after_a_restore_keeps_what_the_hospital_had_let_copies_keep(
    hospital: ReadingSite, tmp_path: Path
) -> None:
    terms = hospital.paths.root / FILE_NAME
    terms.write_text("modified_dates: true\n")
    write_backup(hospital.settings, tmp_path / "b", KEY)
    restore(tmp_path / "new", tmp_path / "b", KEY, force=False)
    assert load_deidentification_policy(SitePaths(tmp_path / "new")).modified_dates
    terms.write_text("modified_dates: false\n")
    found = restore(hospital.paths.root, tmp_path / "b", KEY, force=False)
    assert (FILE_NAME in found.kept, load_deidentification_policy(hospital.paths).modified_dates) == (True, False)
    assert FILE_NAME in restore(hospital.paths.root, tmp_path / "b", KEY, force=True).rewritten
