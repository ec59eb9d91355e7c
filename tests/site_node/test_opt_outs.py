"""Opting out: the record, what a patient had been used for, and the commands. No id is ever printed."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from site_node.cohort.index import index_folder
from site_node.cohort_members import ledger_pseudonym, pseudonym_key
from site_node.governance.records import open_records
from site_node.opt_out_report import uses_of
from site_node.opt_outs import OptOut, all_opt_outs, load_identities, record_opt_outs, recorded_opt_outs, undo_opt_outs
from site_node.settings import load_settings
from site_node.site_secrets import read_noise_key
from tests.fakes.dicom import make_dataset, save
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.site_command import run

NAMES = [f"Jansen^{number}" for number in range(30)]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "worker" / "opt_outs.sqlite"


def test_the_record_keeps_each_patient_s_first_time_and_can_be_mended(record: Path) -> None:
    assert recorded_opt_outs(record) == {}
    assert undo_opt_outs(record, ["a"]) == 0
    assert record_opt_outs(record, ["a", "b", "a"], now=1.0) == 2
    assert record_opt_outs(record, ["b", "c"], now=2.0) == 1
    assert recorded_opt_outs(record) == {"a": 1.0, "b": 1.0, "c": 2.0}
    assert undo_opt_outs(record, ["b", "d"], now=3.0) == 1
    assert record_opt_outs(record, ["b"], now=4.0) == 1
    assert recorded_opt_outs(record) == {"a": 1.0, "c": 2.0, "b": 4.0}
    assert stat.S_IMODE(record.stat().st_mode) == 0o600


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path)


def configure(site: GatedSite, **keys: str) -> None:
    with site.paths.configuration.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}: {value}\n" for name, value in keys.items())


def test_the_list_the_record_and_the_merge_table_are_one_answer(site: GatedSite) -> None:
    configure(site, merged_patients="merges.csv", excluded_patients="objections.csv")
    (site.paths.root / "merges.csv").write_text("old_id,new_id\na,b\n", encoding="utf-8")
    (site.paths.root / "objections.csv").write_text("patient_id\nb\nx\n", encoding="utf-8")
    settings = load_settings(site.paths.root)
    record_opt_outs(settings.paths.opt_outs, ["a", "c"], now=5.0)
    assert all_opt_outs(settings) == [OptOut(("a", "b"), 5.0), OptOut(("c",), 5.0), OptOut(("x",), None)]
    identities = load_identities(settings)
    assert [identities.takes_part(one) for one in "abcdx"] == [False, False, False, True, False]


def named(site: GatedSite) -> list[str]:
    key = pseudonym_key(read_noise_key(site.paths.noise_key))
    return [ledger_pseudonym(name, key) for name in NAMES]


def study_with_patients_of_names(site: GatedSite, name: str, *, training: int, held_out: int) -> None:
    study = study_of(name=name)
    site.propose(study)
    site.sweep()
    own = named(site)
    site.count_these(study, own[:training], own[training : training + held_out])
    site.sweep()
    site.hand_over(site.give(site.task(study)))
    site.sweep()


def test_a_patient_is_remembered_against_the_rounds_that_used_them(site: GatedSite) -> None:
    study_with_patients_of_names(site, "chest", training=20, held_out=10)
    key = pseudonym_key(read_noise_key(site.paths.noise_key))
    database = open_records(site.paths)
    received = database.execute("SELECT MAX(received_at) FROM tasks").fetchone()[0]
    [use] = uses_of(database, [OptOut((NAMES[3],), received + 1)], key)
    assert (use.name, use.group, use.rounds, use.versions) == ("chest", "training", (1,), (0,))
    [use] = uses_of(database, [OptOut((NAMES[3],), received - 1)], key)  # the task came after they had objected
    assert (use.group, use.rounds) == ("training", ())
    [use] = uses_of(database, [OptOut((NAMES[25],), None)], key)
    assert (use.group, use.rounds) == ("held-out", ())
    assert uses_of(database, [OptOut(("somebody else",), None)], key) == []


def test_the_commands_take_ids_and_print_none(site: GatedSite) -> None:
    study_with_patients_of_names(site, "chest", training=20, held_out=10)
    folder = site.paths.root
    cached = site.paths.cache / "prepared.npy"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(b"pixels")
    begun = site.paths.checkpoints / "study" / "00000001.task" / "round.sealed"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"weights")
    device = begun.with_name("device.json")  # a task does not change its device because somebody objects
    device.write_bytes(b"{}")
    configure(site, excluded_patients="objections.csv")  # without a time: every round may have used them
    (folder / "objections.csv").write_text(f"patient_id\n{NAMES[15]}\n", encoding="utf-8")
    (folder / "some.csv").write_text("patient_id\n" + "\n".join(NAMES[1:3]), encoding="utf-8")
    outputs = [
        run("opt-out", folder, NAMES[0]),
        run("opt-out", folder, "--file", folder / "some.csv"),
        run("opt-out", folder, "-", typed="\n".join(NAMES[:12]) + "\n"),
        run("opt-outs", folder),
        run("opt-outs", folder, "--patient", NAMES[25]),
        run("opt-outs", folder, "--patient", NAMES[15], "--json"),
    ]
    assert [status for status, _ in outputs] == [0] * 6
    assert not any("Jansen" in output for _, output in outputs)
    assert "Recorded: 9 of 12" in outputs[2][1]
    assert "10 or more patients" in outputs[3][1]
    assert "study chest" in outputs[3][1]
    assert "trained on, rounds 1, from versions 0" in outputs[3][1]
    assert "no patients" in outputs[4][1]
    found = json.loads(outputs[5][1])
    assert (found["patients_at_least"], found["any"], found["uses"][0]["rounds"]) == (None, True, [1])
    assert (cached.exists(), begun.exists(), device.exists()) == (False, False, True)
    assert "Taken out: 1 of 1" in run("opt-out", folder, NAMES[0], "--undo")[1]


def test_one_of_two_ways_to_name_patients_is_needed(site: GatedSite) -> None:
    for words in ((), ("a", "--file", "b.csv")):
        status, output = run("opt-out", site.paths.root, *words)
        assert (status, "Name one patient, or a file" in output) == (1, True)
    status, output = run("opt-out", site.paths.root, "-", typed="\n")
    assert (status, "No patient is named" in output) == (1, True)


@pytest.fixture
def site_with_images(site: GatedSite, tmp_path: Path) -> GatedSite:
    folder = tmp_path / "images"
    save(make_dataset(np.zeros((4, 4), np.uint8), "Jansen-7475"), folder / "a.dcm")
    configure(site, merged_patients="merges.csv", table="table.csv")
    (site.paths.root / "merges.csv").write_text("old_id,new_id\nJansen-old,Jansen-new\n", encoding="utf-8")
    (site.paths.root / "table.csv").write_text("patient_id,age\nJansen-table,70\n", encoding="utf-8")
    index_folder([folder], site.paths.index)
    return site


def test_an_id_that_is_nobody_s_here_is_told_and_recorded_all_the_same(site_with_images: GatedSite) -> None:
    paths = site_with_images.paths
    for known in ("Jansen-7475", "Jansen-old", "Jansen-table"):
        status, output = run("opt-out", paths.root, known)
        assert (status, "no patient here" in output) == (0, False)
    status, output = run("opt-out", paths.root, "-", typed="  jansen-7475 \nNOSUCHID\nJansen-new\n")
    assert status == 0
    assert "Recorded: 3 of 3.\n" in output
    assert "2 of 3 are no patient here" in output
    assert "1 of them differs from a patient's id here only in capitals: give --any-case" in output
    assert "NOSUCHID" not in output
    assert "jansen" not in output.casefold()
    assert "NOSUCHID" in recorded_opt_outs(paths.opt_outs)
    assert "1 had opted out before" in run("opt-out", paths.root, "NOSUCHID")[1]


def test_with_any_case_the_ids_here_are_recorded_as_they_are_written_here(site_with_images: GatedSite) -> None:
    paths = site_with_images.paths
    status, output = run("opt-out", paths.root, " JANSEN-7475 ", "--any-case")
    assert (status, "no patient here" in output) == (0, False)
    assert list(recorded_opt_outs(paths.opt_outs)) == ["Jansen-7475"]
    assert not load_identities(load_settings(paths.root)).takes_part("Jansen-7475")
    assert "Taken out: 1 of 1." in run("opt-out", paths.root, "jansen-7475", "--any-case", "--undo")[1]
    assert "Taken out: 0 of 1; 1 not in the record." in run("opt-out", paths.root, "x", "--undo")[1]
