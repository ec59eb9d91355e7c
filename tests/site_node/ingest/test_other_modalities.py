"""dcmtk's programs beside Orthanc and our listener: what `findscu` finds, what `movescu` has sent."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from site_node.cli import app
from site_node.ingest.answers import study_of
from site_node.ingest.dimse import DimsePacs
from site_node.pacs_settings import PacsSettings
from tests.fakes.dcmtk import DcmtkMissingError, Modality, program_of
from tests.fakes.dicom import make_dataset, save, uid_of
from tests.fakes.orthanc import AE_TITLE, free_port, orthanc
from tests.fakes.running_listener import make_site, running_listener

SCRIPT = Path(__file__).parents[3] / "scripts" / "install-packages"
PIXELS = np.full((8, 8), 7, dtype=np.uint16)
PATIENTS, INSTANCES = 3, 2


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an activated Python environment that brings a storescu, on a machine that has none."""
    program = tmp_path / "venv" / "bin" / "storescu"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="ascii")
    monkeypatch.setenv("PATH", str(program.parent))
    return program.parent


def test_a_python_environments_storescu_is_not_taken_for_dcmtks(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DcmtkMissingError, match="storescu"):
        program_of("storescu")
    dcmtks = tmp_path / "usr" / "storescu"
    dcmtks.parent.mkdir()
    (environment / "storescu").rename(dcmtks)
    (environment / "storescu").symlink_to(dcmtks)
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (environment, dcmtks.parent))))
    assert program_of("storescu") == str(dcmtks)


def test_the_packages_are_installed_although_a_python_environment_has_the_name(
    environment: Path, tmp_path: Path
) -> None:
    def said() -> str:
        command = [str(SCRIPT), "a test", "storescu=dcmtk"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr

    assert said() == "No apt-get: install dcmtk by hand to run a test.\n"
    (tmp_path / "venv" / "pyvenv.cfg").unlink()  # a folder like any other
    assert said() == ""


def held(folder: Path) -> list[Path]:
    return [
        save(
            make_dataset(PIXELS + instance, f"PATIENT{number}", str(instance), StudyDate=f"2026010{number + 1}"),
            folder / f"{number}-{instance}.dcm",
        )
        for number in range(PATIENTS)
        for instance in range(INSTANCES)
    ]


@pytest.mark.parametrize(
    "question", [{"StudyDate": "20260102-20260331"}, {"ModalitiesInStudy": "DX"}, {"ModalitiesInStudy": "CT"}]
)
def test_dcmtks_findscu_finds_what_our_query_finds(tmp_path: Path, question: dict[str, str]) -> None:
    with orthanc() as server:
        assert len(server.store(held(tmp_path))) == PATIENTS * INSTANCES
        keys = [
            "QueryRetrieveLevel=STUDY",
            "StudyInstanceUID",
            *(f"{name}={value}" for name, value in question.items()),
        ]
        options = [word for key in keys for word in ("-k", key)]
        done = Modality(server.port, "WARDROUND", AE_TITLE).run("findscu", "-v", "-S", *options)
        pacs = DimsePacs(PacsSettings(host="127.0.0.1", port=server.port))
        ours = [study_of(answer) for answer in pacs.find("STUDY", question)]
        pacs.close()
    assert done.returncode == 0, done.stderr
    theirs = re.findall(r"\(0020,000d\) UI \[([0-9.]+)", done.stdout + done.stderr)
    first = 1 if "StudyDate" in question else 0
    expected = [] if "CT" in question.values() else [uid_of(f"PATIENT{n}/study") for n in range(first, PATIENTS)]
    assert sorted(filter(None, theirs)) == sorted(study.uid for study in ours if study) == sorted(expected)


def test_dcmtks_movescu_has_the_pacs_send_to_our_listener_and_the_index_has_it(tmp_path: Path) -> None:
    listening_at = free_port()
    paths = make_site(tmp_path / "here", port=listening_at, ae_title="WARDROUND", callers=[{"ae_title": AE_TITLE}])
    with orthanc(listening_at) as server, running_listener(paths) as listener:
        server.store(held(tmp_path / "held"))
        keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid_of('PATIENT1/study')}"]
        options = [word for key in keys for word in ("-k", key)]
        # Orthanc lets WARDROUND move, as it would a workstation; the destination is our listener
        mover = Modality(server.port, "WARDROUND", AE_TITLE)
        done = mover.run("movescu", "-v", "-S", "-aem", "WARDROUND", *options)
        assert done.returncode == 0, done.stderr
        assert listener.stop() == 0
    assert len(list((paths.received / "sent").rglob("*.dcm"))) == INSTANCES
    index = CliRunner().invoke(app, ["index", str(paths.root), "--json"])
    assert yaml.safe_load(index.stdout)["indexed"] == INSTANCES
