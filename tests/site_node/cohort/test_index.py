"""The index: complete, incremental, resumable, and never ended by a bad file."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from site_node.cli import app
from site_node.cohort import index_database
from site_node.cohort.contents import contents_of
from site_node.cohort.index import index_folder
from site_node.cohort.index_database import open_index
from site_node.cohort.index_report import index_of_any_folder, report_as_json, report_as_text
from site_node.errors import IndexingError
from tests.fakes.dicom import make_dataset, make_hospital, save

PIXELS = np.zeros((8, 8), dtype=np.uint8)
DEMO = Path(__file__).parents[3] / "compose" / "demo" / "hospitals"
ODD_FILES = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "worker" / "index.sqlite"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_hospital(tmp_path / "images", patients=4, size=8).folder


def test_everything_is_counted_once(images: Path, index: Path) -> None:
    save(make_dataset(PIXELS, PatientID=""), images / "anonymous.dcm")
    (images / "broken.dcm").write_bytes(b"no image")
    report = index_folder([images], index)
    assert (report.files, report.indexed, report.instances, report.patients) == (11, 9, 9, 4)
    assert [(entry.file.name, entry.reason) for entry in report.quarantined] == [("broken.dcm", "not a DICOM file")]
    assert report.files == report.indexed + len(report.quarantined) + report.companions


def test_files_that_masks_csv_names_accompany_the_images(images: Path, index: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.nii.gz", "stray.png"):
        (images / "masks").mkdir(exist_ok=True)
        (images / "masks" / name).write_bytes(b"a mask")
    (images / "masks" / "empty.png").touch()
    reasons = {"a.png": "not a DICOM file", "b.nii.gz": "not a DICOM file", "stray.png": "not a DICOM file"}
    before = index_folder([images], index)
    assert {entry.file.name: entry.reason for entry in before.quarantined} == {
        **reasons,
        "empty.png": "the file is empty",
    }
    table = "file,sop_instance_uid\nmasks/a.png,1.2\nmasks/../masks/b.nii.gz,1.3\nmasks/empty.png,1.4\n"
    (images / "masks.csv").write_text(table + "P0000/0.dcm,1.5\n,1.6\n", encoding="utf-8")
    after = index_folder([images], index)
    assert {entry.file.name for entry in after.quarantined} == {"stray.png", "empty.png"}
    assert (after.files, after.indexed, after.companions) == (before.files + 1, before.indexed, before.companions + 3)
    elsewhere = tmp_path / "labels" / "labels.csv"
    elsewhere.parent.mkdir()
    named = images / "masks" / "stray.png"
    (elsewhere.with_name("masks.csv")).write_text(f"file,series_instance_uid\n{named},1.2\n", encoding="utf-8")
    last = index_folder([images], index, labels=elsewhere)
    assert {entry.file.name for entry in last.quarantined} == {"a.png", "b.nii.gz", "empty.png"}
    (images / "masks.csv").write_text("not,such\n", encoding="utf-8")
    assert len(index_folder([images], index).quarantined) == 4


def test_few_files_are_named_unless_all_are_asked_for(images: Path, tmp_path: Path) -> None:
    for number in range(12):
        (images / f"{number:02d}.bad").write_bytes(b"no image")
    report = index_of_any_folder(images)
    brief, whole = report_as_text(report, [images]), report_as_text(report, [images], every=True)
    assert (brief.count("left out"), whole.count("left out")) == (10, 12)
    assert "and 2 more: --list names all of them" in brief
    assert "more: --list" not in whole
    assert str(images) not in brief
    other = tmp_path / "received"
    assert f"left out: {images.name}/00.bad" in report_as_text(report, [images, other])
    listed = CliRunner().invoke(app, ["index", str(images), "--list"]).output
    assert listed.count("left out") == 12


def test_a_copy_is_a_file_but_no_second_instance(images: Path, index: Path) -> None:
    (images / "copy.dcm").write_bytes((images / "P0000" / "0.dcm").read_bytes())
    report = index_folder([images], index)
    assert (report.indexed, report.instances) == (9, 8)


def test_overlapping_folders_count_once(images: Path, index: Path) -> None:
    assert index_folder([images, images / "P0000"], index).files == 9


def test_an_unchanged_folder_is_not_opened_again(images: Path, index: Path) -> None:
    first = index_folder([images], index)
    second = index_folder([images], index)
    assert (first.opened, second.opened) == (9, 0)
    assert (first.indexed, first.patients) == (second.indexed, second.patients)


def test_changed_new_and_vanished_files_are_noticed(images: Path, index: Path) -> None:
    index_folder([images], index)
    (images / "P0000" / "0.dcm").unlink()
    (images / "P0001" / "0.dcm").write_bytes(b"overwritten")
    save(make_dataset(PIXELS, "P9"), images / "new.dcm")
    report = index_folder([images], index)
    assert (report.opened, report.vanished, report.indexed, len(report.quarantined)) == (2, 1, 7, 1)


def test_a_repaired_file_leaves_the_quarantine(images: Path, index: Path) -> None:
    path = images / "P0000" / "0.dcm"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert "ends in the middle" in index_folder([images], index).quarantined[0].reason
    path.write_bytes(content)
    assert index_folder([images], index).quarantined == ()


def test_an_emptied_folder_is_not_taken_for_a_deletion(images: Path, index: Path) -> None:
    index_folder([images], index)
    images.rename(images.with_name("elsewhere"))
    with pytest.raises(IndexingError, match="not there"):
        index_folder([images], index)
    images.mkdir()
    with pytest.raises(IndexingError, match="Mount it again") as caught:
        index_folder([images], index)
    assert str(index) in caught.value.remedy
    with open_index(index) as database:
        assert database.counts().images == 8


def test_a_run_that_was_interrupted_goes_on(images: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_node.cohort.index.BATCH_FILES", 3)

    def interrupt(done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_folder([images], index, progress=interrupt)
    assert index_folder([images], index).opened == 3


def test_progress_ends_at_the_total(images: Path, index: Path) -> None:
    heard: list[tuple[int, int]] = []
    index_folder([images], index, progress=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (9, 9)


def test_processes_give_the_same_index(images: Path, index: Path, tmp_path: Path) -> None:
    alone = index_folder([images], index, processes=1)
    together = index_folder([images], tmp_path / "other.sqlite", processes=2)
    assert alone == together


def test_the_index_is_readable_by_its_user_alone(images: Path, index: Path) -> None:
    index_folder([images], index)
    assert stat.S_IMODE(os.stat(index).st_mode) == 0o600  # noqa: PTH116 - the mode as the system has it


def test_an_index_of_another_reader_version_is_made_again(
    images: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_folder([images], index)
    monkeypatch.setattr(index_database, "READER_VERSION", 99)
    assert index_folder([images], index).opened == 9


def test_the_report_names_files_relative_to_the_folder(images: Path) -> None:
    (images / "P0000" / "broken.dcm").write_bytes(b"no image")
    report = index_of_any_folder(images)
    data = report_as_json(report, [images])
    assert {key: data[key] for key in ("files", "instances", "patients", "indexed")} == {
        "files": 10, "instances": 8, "patients": 4, "indexed": 8,
    }  # fmt: skip
    assert data["quarantined"] == [{"file": "P0000/broken.dcm", "reason": "not a DICOM file"}]
    text = report_as_text(report, [images])
    assert "1 quarantined" in text
    assert "left out: P0000/broken.dcm: not a DICOM file" in text


@pytest.mark.parametrize(("hospital", "patients"), [("st-anna", 239), ("harbour", 142), ("northfield", 96)])
def test_every_file_of_the_demos_hospitals_is_usable(hospital: str, patients: int) -> None:
    report = index_of_any_folder(DEMO / hospital)
    assert (report.patients, report.quarantined, report.companions) == (patients, (), 1)


@pytest.mark.shared
def test_odd_files_end_indexed_or_quarantined_with_a_reason() -> None:
    report = index_of_any_folder(ODD_FILES)
    assert report.files == report.indexed + len(report.quarantined) + report.companions == 373
    assert report.indexed == 253  # all that the library decodes, but three without a SOP instance UID
    assert all(entry.reason for entry in report.quarantined)


def test_a_name_that_is_not_utf_8_is_indexed_shown_and_opened(images: Path, index: Path, tmp_path: Path) -> None:
    folder = os.fsencode(images)
    (images / "P0000" / "0.dcm").rename(os.fsdecode(folder + b"/bad\xff\xfename.dcm"))
    Path(os.fsdecode(folder + b"/\xe9.dcm")).write_bytes(b"no image")
    report = index_folder([images], index)
    assert (report.indexed, report.instances) == (8, 8)
    assert report_as_json(report, [images])["quarantined"] == [{"file": "\\xe9.dcm", "reason": "not a DICOM file"}]
    with open_index(index) as database:
        [odd] = [image for image in database.images() if b"\xff" in os.fsencode(image.path)]
        assert odd.path.read_bytes()[128:132] == b"DICM"
        contents = contents_of(database, [odd])
        assert [image.content for image in database.images() if image.path == odd.path] == [contents[odd.path]]
    assert index_folder([images], index).opened == 0
    odd.path.unlink()
    assert index_folder([images], index).vanished == 1
    assert CliRunner().invoke(app, ["index", str(images)]).exit_code == 0


class TestSeveralRoots:
    @pytest.fixture
    def roots(self, tmp_path: Path) -> list[Path]:
        return [
            make_hospital(tmp_path / name, patients=2, size=8, seed=seed).folder for seed, name in enumerate(("x", "y"))
        ]

    def test_each_is_indexed_and_a_folder_that_site_yaml_names_no_more_is_forgotten(
        self, roots: list[Path], index: Path
    ) -> None:
        assert index_folder(roots, index).indexed == 8
        assert index_folder(roots[:1], index).vanished == 5  # four images and labels.csv

    @pytest.mark.parametrize("empty", [True, False])
    def test_one_that_went_away_is_told_and_the_others_are_brought_up_to_date(
        self, roots: list[Path], index: Path, empty: bool
    ) -> None:
        index_folder(roots, index)
        away = roots[0].rename(roots[0].with_name("elsewhere"))
        if empty:
            roots[0].mkdir()
        save(make_dataset(PIXELS, "P9"), roots[1] / "new.dcm")
        (roots[1] / "P0000" / "0.dcm").unlink()
        with pytest.raises(IndexingError, match="What was indexed of it stays"):
            index_folder(roots, index)
        with open_index(index) as database:
            assert database.counts().images == 8
        if empty:
            roots[0].rmdir()
        away.rename(roots[0])
        report = index_folder(roots, index)
        assert (report.indexed, report.opened, report.vanished) == (8, 0, 0)


def test_a_share_mounted_below_a_root_that_went_away_is_not_taken_for_a_deletion(
    images: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = images / "P0001"
    with monkeypatch.context() as patched:
        patched.setattr("site_node.dicom.folder.device_of", lambda folder: 2 if folder == share else 1)
        assert index_folder([images], index).indexed == 8
    kept = [(path.name, path.read_bytes()) for path in share.iterdir()]
    for path in list(share.iterdir()):
        path.unlink()
    (images / "P0002" / "0.dcm").unlink()
    with pytest.raises(IndexingError, match="no mounted share any more"):
        index_folder([images], index)
    with open_index(index) as database:
        assert database.counts().images == 7
    for name, data in kept:
        (share / name).write_bytes(data)
    with monkeypatch.context() as patched:
        patched.setattr("site_node.dicom.folder.device_of", lambda folder: 2 if folder == share else 1)
        assert index_folder([images], index).indexed == 7


def test_a_folder_that_cannot_be_opened_keeps_what_was_indexed_of_it(
    images: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_folder([images], index)
    scandir = os.scandir

    def stale(folder: Path) -> object:
        if Path(folder).name == "P0001":
            raise OSError(116, "Stale file handle")
        return scandir(folder)

    monkeypatch.setattr("site_node.dicom.folder.os.scandir", stale)
    report = index_folder([images], index)
    assert (report.indexed, report.vanished) == (8, 0)
    assert [entry.reason for entry in report.quarantined] == ["the folder cannot be opened: stale file handle"]


def test_few_files_are_held_at_a_time(images: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_node.cohort.index_changes.WINDOW_FILES", 3)
    monkeypatch.setattr("site_node.cohort.index.BATCH_FILES", 2)
    heard: list[tuple[int, int]] = []
    assert index_folder([images], index, progress=lambda *done: heard.append(done)).opened == 9
    assert [done for done, _ in heard] == [2, 3, 5, 6, 8, 9]
    assert index_folder([images], index).opened == 0
