"""`wardround site export`: copies without patients, a manifest, and a run that can be cut off at any file."""

import csv
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from site_node import export_journal
from site_node.cli import app
from site_node.cohort.index_report import index_of_any_folder
from site_node.dicom.deidentification_policy import DeidentificationPolicy
from site_node.durable import write_durably
from site_node.errors import DiskFullError, SettingsError
from site_node.export_selection import cohort_images, indexed_images
from site_node.exporting import export_images, load_deidentification_policy, site_pseudonyms
from site_node.settings import SiteSettings, load_settings
from tests.fakes.dicom import FakeHospital, make_dataset, make_hospital, save, uid_of
from tests.fakes.gated_site import GatedSite, study_of

ALL: dict[str, object] = {"imaging_studies": []}


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.fixture
def hospital(tmp_path: Path) -> FakeHospital:
    return make_hospital(tmp_path / "images", patients=6, prefix="MRN")


@pytest.fixture
def settings(tmp_path: Path, hospital: FakeHospital) -> SiteSettings:
    site = tmp_path / "site"
    status, output = run("init", site, "--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", hospital.folder)
    assert status == 0, output
    assert run("index", site)[0] == 0
    return load_settings(site)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def manifest(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_image_is_copied_under_pseudonyms_and_can_be_read(settings: SiteSettings, out: Path) -> None:
    status, output = run("export", settings.paths.root, out)
    assert (status, "12 images copied" in output) == (0, True)
    rows = manifest(out)
    assert len(rows) == len({row["sop_instance_uid"] for row in rows}) == 12
    assert len({row["patient_id"] for row in rows}) == 6
    for row in rows:
        copy = pydicom.dcmread(out / row["file"])
        assert (copy.PatientID, copy.SOPInstanceUID) == (row["patient_id"], row["sop_instance_uid"])
        assert copy.PatientIdentityRemoved == "YES"
    assert index_of_any_folder(out).patients == 6


def test_nothing_that_names_a_patient_is_in_the_folder_or_on_the_screen(
    settings: SiteSettings, hospital: FakeHospital, out: Path
) -> None:
    _, output = run("export", settings.paths.root, out)
    names = [b"MRN0", b"Made", *(row["sop_instance_uid"].encode() for row in hospital.rows)]
    for path, content in contents(out).items():
        assert not any(name in content or name in path.encode() for name in names), path
    assert "MRN0" not in output


def test_the_report_says_what_is_left_by_keyword(settings: SiteSettings, out: Path) -> None:
    run("export", settings.paths.root, out)
    report = json.loads((out / "report.json").read_text())
    assert report["copies"] == 12
    assert ["SOPInstanceUID", "replaced by a keyed UID", 12] in report["attributes"]
    assert ["Modality", "kept: the standard does not list it", 12] in report["survivors"]


def test_two_exports_of_one_site_agree_and_another_site_s_differ(
    settings: SiteSettings, out: Path, tmp_path: Path, hospital: FakeHospital
) -> None:
    chosen = indexed_images(settings.paths.index)
    export_images(settings, out, chosen, ALL)
    export_images(settings, tmp_path / "again", chosen, ALL)
    assert {k: v for k, v in contents(out).items() if not k.startswith(".")} == {
        k: v for k, v in contents(tmp_path / "again").items() if not k.startswith(".")
    }
    run("init", tmp_path / "other", "--name", "other", "--hub", "http://127.0.0.1:9", "--images", hospital.folder)
    stranger = site_pseudonyms(load_settings(tmp_path / "other").paths)
    assert stranger.patient_code("MRN0000") != site_pseudonyms(settings.paths).patient_code("MRN0000")


def test_an_export_that_was_cut_off_goes_on_and_ends_alike(
    settings: SiteSettings, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = indexed_images(settings.paths.index)
    export_images(settings, tmp_path / "whole", chosen, ALL)
    written: list[Path] = []

    def cut_off(path: Path, data: bytes, mode: int = 0o640) -> None:
        written.append(path)
        if len(written) == 6:
            raise KeyboardInterrupt
        write_durably(path, data, mode)

    with monkeypatch.context() as patched:
        patched.setattr("site_node.exporting.write_durably", cut_off)
        with pytest.raises(KeyboardInterrupt):
            export_images(settings, out, chosen, ALL)
    with (out / export_journal.FILE_NAME).open("a") as journal:
        journal.write('{"source": "torn')
    summary = export_images(settings, out, chosen, ALL)
    assert (summary.kept, summary.copied) == (5, 7)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_no_longer_belongs_to_the_export_is_removed(settings: SiteSettings, out: Path) -> None:
    chosen = indexed_images(settings.paths.index)
    export_images(settings, out, chosen, ALL)
    summary = export_images(settings, out, chosen[2:], ALL)
    assert (summary.kept, summary.copied, summary.removed) == (10, 0, 2)
    assert len(list(out.rglob("*.dcm"))) == len(manifest(out)) == 10


def test_a_copy_that_was_deleted_is_made_again(settings: SiteSettings, out: Path) -> None:
    chosen = indexed_images(settings.paths.index)
    export_images(settings, out, chosen, ALL)
    next(out.rglob("*.dcm")).unlink()
    assert export_images(settings, out, chosen, ALL).copied == 1


def test_one_bad_file_is_one_refusal_and_its_name_stays_at_the_site(settings: SiteSettings, out: Path) -> None:
    image = settings.images[0] / "MRN0000" / "0.dcm"
    image.write_bytes(image.read_bytes()[:200])
    (settings.images[0] / "MRN0001" / "0.dcm").unlink()
    chosen = indexed_images(settings.paths.index)
    summary = export_images(settings, out, chosen, ALL)
    assert (summary.copied, sum(summary.refused.values())) == (10, 2)
    assert summary.refused_list is not None
    assert summary.refused_list.is_relative_to(settings.paths.worker)
    assert "MRN0000" in summary.refused_list.read_text()
    assert all(b"MRN000" not in content for content in contents(out).values())


def test_imaging_studies_are_chosen_by_their_uid(settings: SiteSettings, out: Path) -> None:
    status, output = run("export", settings.paths.root, out, "--imaging-study", uid_of("MRN0002/study"), "--json")
    assert (status, json.loads(output)["copied"]) == (0, 2)
    status, output = run("export", settings.paths.root, out / "b", "--imaging-study", "1.2.3.4711")
    assert (status, "1 of the 1 named imaging studies" in output) == (1, True)
    assert "4711" not in output


def test_a_research_study_s_cohort_comes_with_labels_and_splits(settings: SiteSettings, out: Path) -> None:
    study = study_of(cohort={"minimum_patients": 1, "modality": ["DX"]})
    chosen = cohort_images(settings, study)
    export_images(settings, out, chosen, {"study": study.digest}, study.label.column)
    rows = manifest(out)
    assert {row[study.label.column] for row in rows} == {"0", "1"}
    assert {row["split"] for row in rows} <= {"train", "validation", "test"}
    assert len(rows) == len(chosen) > 0


def test_the_command_finds_a_proposed_study_by_the_beginning_of_its_digest(tmp_path: Path, out: Path) -> None:
    site = GatedSite.make(tmp_path)
    study = study_of()
    site.propose(study)
    site.sweep()
    assert "not indexed yet" in run("export", site.paths.root, out, "--study", study.digest[:20])[1]
    assert "No study's digest" in run("export", site.paths.root, out, "--study", "sha256:00000000")[1]
    assert "exclude each other" in run("export", site.paths.root, out, "--study", "a", "--imaging-study", "b")[1]


def test_a_folder_that_holds_something_else_is_left_alone(settings: SiteSettings, out: Path) -> None:
    chosen = indexed_images(settings.paths.index)
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not empty"):
        export_images(settings, out, chosen, ALL)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("inside", ["images", "site"])
def test_copies_do_not_lie_among_the_originals(settings: SiteSettings, inside: str) -> None:
    folder = settings.images[0] if inside == "images" else settings.paths.root
    with pytest.raises(SettingsError, match="outside"):
        export_images(settings, folder / "copies", [], ALL)


def test_an_export_by_another_policy_or_of_other_images_needs_another_folder(settings: SiteSettings, out: Path) -> None:
    chosen = indexed_images(settings.paths.index)
    export_images(settings, out, chosen, ALL)
    with pytest.raises(SettingsError, match="other images"):
        export_images(settings, out, chosen, {"imaging_studies": ["1.2"]})
    (settings.paths.root / "deidentification.yaml").write_text("patient_characteristics: true\n")
    with pytest.raises(SettingsError, match="another policy"):
        export_images(settings, out, chosen, ALL)


def test_the_policy_is_read_and_a_wrong_one_is_told(settings: SiteSettings, out: Path) -> None:
    file = settings.paths.root / "deidentification.yaml"
    assert load_deidentification_policy(settings.paths) == DeidentificationPolicy()
    file.write_text("modified_dates: true\nsafe_private:\n  - {creator: ACME, group: 0x0019, elements: [0x0C]}\n")
    policy = load_deidentification_policy(settings.paths)
    assert policy.modified_dates
    assert policy.allows_private("ACME", 0x0019100C)
    assert not policy.allows_private("ACME", 0x0019100D)
    file.write_text("modify_dates: true\n")
    status, output = run("export", settings.paths.root, out)
    assert (status, "modify_dates" in output) == (1, True)


def test_a_full_disk_is_told_and_the_export_can_go_on(
    settings: SiteSettings, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    chosen = indexed_images(settings.paths.index)
    with monkeypatch.context() as patched:
        patched.setattr("site_node.exporting.write_durably", full)
        with pytest.raises(DiskFullError):
            export_images(settings, out, chosen, ALL)
    assert export_images(settings, out, chosen, ALL).copied == 12


def test_of_two_files_of_one_instance_one_is_copied(settings: SiteSettings) -> None:
    twin = settings.images[0] / "MRN0000" / "twin.dcm"
    twin.write_bytes((settings.images[0] / "MRN0000" / "0.dcm").read_bytes())
    save(make_dataset(np.zeros((4, 4), np.uint8), "MRN9"), settings.images[0] / "nine.dcm")
    assert run("index", settings.paths.root)[0] == 0
    assert len(indexed_images(settings.paths.index)) == 13
