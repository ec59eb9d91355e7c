"""The listener's process beside real modalities (dcmtk): who is let in, what is stored, what becomes of odd objects."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from site_node.cli import app
from site_node.cohort.index import index_folder
from site_node.listen_command import received_so_far
from site_node.settings import load_settings
from tests.fakes.dcmtk import Modality
from tests.fakes.dicom import make_dataset, save
from tests.fakes.odd_objects import make_odd_objects
from tests.fakes.running_listener import RunningListener, make_site, running_listener

PIXELS = np.full((32, 24), 7, dtype=np.uint16)
SECRETS = ("Made", "Up", "P00", "DX", "CHEST")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningListener]:
    callers = [{"ae_title": "CT1"}, {"ae_title": "FAR", "addresses": ["192.0.2.0/24"]}]
    with running_listener(make_site(tmp_path_factory.mktemp("listener"), callers=callers)) as found:
        yield found


def images(folder: Path, patient: str, number: int = 3) -> list[Path]:
    return [save(make_dataset(PIXELS + i, patient, str(i)), folder / f"{patient}-{i}.dcm") for i in range(number)]


def stored(running: RunningListener) -> dict[str, Path]:
    files = (running.paths.received / "sent").rglob("*.dcm")
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in files}


def test_a_listed_modality_is_echoed_and_its_images_are_stored(running: RunningListener, tmp_path: Path) -> None:
    modality, files = Modality(running.port), images(tmp_path, "P001")
    assert modality.echo()
    sending = modality.send(files)
    assert set(sending.statuses.values()) == {0}
    assert len(sending.statuses) == 3
    for file in files:
        sent = pydicom.dcmread(file)
        found = pydicom.dcmread(stored(running)[str(sent.SOPInstanceUID)])
        assert found == sent
        assert found.file_meta.MediaStorageSOPClassUID == sent.SOPClassUID
        assert found.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID


@pytest.mark.parametrize("modality", [{"ae_title": "CT2"}, {"ae_title": "FAR"}, {"called": "OTHER"}])
def test_who_is_not_listed_is_refused(running: RunningListener, tmp_path: Path, modality: dict[str, str]) -> None:
    stranger = Modality(running.port, **modality)  # type: ignore[arg-type]
    assert not stranger.echo()
    sending = stranger.send(images(tmp_path, "P002"))
    assert sending.statuses == {}
    assert sending.returncode != 0


def test_an_image_that_is_sent_again_is_taken_again_and_stored_once(running: RunningListener, tmp_path: Path) -> None:
    modality, files = Modality(running.port), images(tmp_path, "P003")
    assert set(modality.send(files).statuses.values()) == {0}
    before = {path: path.stat() for path in stored(running).values()}
    assert set(modality.send(files).statuses.values()) == {0}
    assert {path: path.stat() for path in stored(running).values()} == before


def test_another_object_of_the_same_name_is_quarantined_and_overwrites_nothing(
    running: RunningListener, tmp_path: Path
) -> None:
    modality = Modality(running.port)
    first = save(make_dataset(PIXELS, "P004", "1"), tmp_path / "first.dcm")
    other = save(make_dataset(PIXELS + 1, "P004", "1"), tmp_path / "other.dcm")
    after = save(make_dataset(PIXELS, "P004", "2"), tmp_path / "after.dcm")
    assert modality.send([first, other, after]).statuses == {first: 0, other: 0x0111, after: 0}
    kept = stored(running)[str(pydicom.dcmread(first).SOPInstanceUID)]
    assert pydicom.dcmread(kept) == pydicom.dcmread(first)
    [entry] = [e for e in received(running) if e["reason"].startswith("another object with the same")]
    refused = running.paths.ingest / "listener" / "quarantine" / entry["file"]
    assert pydicom.dcmread(refused).pixel_array[0, 0] == 8


def test_reasons_count_each_time_that_an_object_was_refused_as_the_total_does(tmp_path: Path) -> None:
    paths = make_site(tmp_path)
    first = save(make_dataset(PIXELS, "P004", "1"), tmp_path / "first.dcm")
    others = [save(make_dataset(PIXELS + n, "P004", "1"), tmp_path / f"other{n}.dcm") for n in (1, 2)]
    with running_listener(paths) as running:
        Modality(running.port).send([first, *others, others[0]])
        assert running.stop() == 0
    found = received_so_far(load_settings(paths.root))
    assert len(found["quarantine"]) == 2
    assert found["counts"]["quarantined"] == sum(found["reasons"].values()) == 3
    said = CliRunner().invoke(app, ["received", str(paths.root)]).output
    assert "3 quarantined" in said
    assert "In quarantine, sent or fetched: 2 objects, refused 3 times" in said
    assert said.count(", 2 times: another object") == 1


def received(running: RunningListener) -> list[dict[str, str]]:
    found: list[dict[str, str]] = received_so_far(load_settings(running.paths.root))["quarantine"]
    return found


def test_names_of_files_say_nothing_of_a_patient_and_are_readable_by_the_group(
    running: RunningListener, tmp_path: Path
) -> None:
    [file] = images(tmp_path, "P005", 1)
    Modality(running.port).send([file])
    dataset = pydicom.dcmread(file)
    path = stored(running)[str(dataset.SOPInstanceUID)]
    assert path.stem.isalnum()
    assert len(path.stem) == 40
    assert str(dataset.SOPInstanceUID) not in str(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_each_odd_object_ends_indexed_or_quarantined_with_a_reason(tmp_path: Path) -> None:
    odd = make_odd_objects(tmp_path / "odd")
    files = [*odd.good.values(), *odd.damaged.values(), odd.no_dicom]
    paths = make_site(tmp_path / "place")
    with running_listener(paths) as running:
        sending = Modality(running.port).send_as_they_are(files, tmp_path / "profile.cfg")
        assert running.stop() == 0
    assert set(sending.never_sent) == {odd.no_dicom, odd.damaged["cut short"]}  # storescu reads them itself, and cannot
    assert sending.statuses == dict.fromkeys(odd.good.values(), 0)
    report = index_folder([paths.received], paths.index)
    assert report.files == len(odd.good) == report.indexed + len(report.quarantined)
    assert [entry.reason for entry in report.quarantined] == [
        "no pixels: a structured report ('Basic Text SR Storage')"
    ]
    syntaxes = {
        pydicom.dcmread(p, stop_before_pixels=True).file_meta.TransferSyntaxUID for p in paths.received.rglob("*.dcm")
    }
    assert len(syntaxes) == 6  # each as it was sent: none was decoded


def test_the_index_of_the_site_reads_what_was_received(running: RunningListener, tmp_path: Path) -> None:
    Modality(running.port).send(images(tmp_path, "P006"))
    result = CliRunner().invoke(app, ["index", str(running.paths.root), "--json"])
    assert result.exit_code == 0
    assert '"quarantined": []' in result.stdout
    assert f'"indexed": {len(stored(running))}' in result.stdout


def test_neither_log_nor_report_holds_a_word_of_an_object(running: RunningListener, tmp_path: Path) -> None:
    files = images(tmp_path, "P007")
    files.append(save(make_dataset(PIXELS + 9, "P007", "0"), tmp_path / "other.dcm"))
    Modality(running.port).send(files)
    report = CliRunner().invoke(app, ["received", str(running.paths.root)]).stdout
    shown = report + running.log.read_text(encoding="utf-8") + str(received(running))
    assert [secret for secret in (*SECRETS, *stored(running)) if secret in shown] == []
    assert {line["event"] for line in running.lines()} <= {"listening", "association_ended", "caller_refused"}


def test_a_second_listener_of_a_site_is_refused_with_a_remedy(running: RunningListener) -> None:
    result = CliRunner().invoke(app, ["listen", str(running.paths.root)])
    assert result.exit_code == 1
    assert "Another listener of this site runs" in result.output


def test_without_a_block_in_site_yaml_the_command_says_so(tmp_path: Path) -> None:
    CliRunner().invoke(
        app, ["init", str(tmp_path / "s"), "--name", "st-anna", "--hub", "https://h.example", "--images", str(tmp_path)]
    )
    result = CliRunner().invoke(app, ["listen", str(tmp_path / "s")])
    assert result.exit_code == 1
    assert "has no block listener" in result.output


def test_what_was_answered_with_success_survives_a_kill_and_the_rest_is_sent_again(tmp_path: Path) -> None:
    paths = make_site(tmp_path)
    files = images(tmp_path / "files", "P009", 80)
    with running_listener(paths) as first, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(Modality(first.port).send, files)
        while len(list((paths.received / "sent").rglob("*.dcm"))) < 10:
            assert not sending.done()
        first.process.kill()
        answered = [file for file, status in sending.result().statuses.items() if status == 0]
        assert 0 < len(answered) < len(files)
        kept = stored(first)
        assert [file for file in answered if str(pydicom.dcmread(file).SOPInstanceUID) not in kept] == []
        assert all(pydicom.dcmread(path).pixel_array.shape == (32, 24) for path in kept.values())
    with running_listener(paths) as second:
        assert set(Modality(second.port).send(files).statuses.values()) == {0}
        assert len(stored(second)) == len(files)
        assert list((paths.ingest / "listener" / "incoming").iterdir()) == []


def test_a_killed_listener_leaves_no_half_object_and_goes_on(tmp_path: Path) -> None:
    paths = make_site(tmp_path)
    [file] = images(tmp_path / "files", "P008", 1)
    with running_listener(paths) as first:
        Modality(first.port).send([file])
        left = paths.ingest / "listener" / "incoming" / "left.part"
        left.write_bytes(b"half an object")
    with running_listener(paths) as second:
        assert not left.exists()
        assert Modality(second.port).send([file]).statuses == {file: 0}
        assert second.stop() == 0
    assert received_so_far(load_settings(paths.root))["counts"]["repeated"] == 1
