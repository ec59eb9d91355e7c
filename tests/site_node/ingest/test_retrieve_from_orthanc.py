"""`wardround site retrieve` against a real PACS: C-GET, C-MOVE and DICOMweb, and what goes wrong on the way."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind
from typer.testing import CliRunner

from site_node.cli import app
from site_node.errors import PacsRefusedError
from site_node.ingest import dimse
from site_node.ingest.answers import FoundInstance
from site_node.ingest.dicomweb import DicomwebPacs
from site_node.pacs_settings import PacsSettings
from site_node.settings import SitePaths
from tests.fakes.certificates import Authority
from tests.fakes.dicom import make_dataset, save, uid_of
from tests.fakes.gated_site import study_of
from tests.fakes.orthanc import PASSWORD, USER, Orthanc, OrthancMissingError, free_port, orthanc
from tests.fakes.running_listener import make_site, running_listener

DATA = Path(__file__).parents[4] / "shared" / "data" / "odd_dicom"
PATIENTS, INSTANCES = 4, 3
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
WAYS = ["get", "web"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four patients, one imaging study of three instances each: accession numbers ACC0 to ACC3."""
    folder, made = tmp_path_factory.mktemp("images"), []
    for number in range(PATIENTS):
        for instance in range(INSTANCES):
            dataset = make_dataset(
                PIXELS + instance, f"PATIENT{number}", str(instance), AccessionNumber=f"ACC{number}",
                StudyDate=f"2026010{number + 1}", PatientSex="FM"[number % 2],
            )  # fmt: skip
            made.append(save(dataset, folder / f"{number}-{instance}.dcm"))
    return made


@pytest.fixture
def pacs(files: list[Path]) -> Iterator[Orthanc]:
    with orthanc() as server:
        assert len(server.store(files)) == len(files)
        yield server


@dataclass
class Site:
    """A site whose site.yaml names the PACS."""

    paths: SitePaths
    lists: Path

    def accessions(self, *numbers: str) -> Path:
        self.lists.write_text("accession_number\n" + "\n".join(numbers), encoding="utf-8")
        return self.lists

    def retrieve(self, *words: object) -> tuple[int, dict[str, Any]]:
        result = CliRunner().invoke(app, ["retrieve", str(self.paths.root), "--json", *map(str, words)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "ACC" not in result.output
        assert "2.25." not in result.output
        try:
            return result.exit_code, json.loads(result.stdout)
        except ValueError:
            return result.exit_code, {"said": result.output}

    @property
    def files(self) -> list[Path]:
        return list((self.paths.received / "sent").rglob("*.dcm"))

    @property
    def here(self) -> dict[str, float]:
        return {path.name: path.stat().st_mtime_ns for path in self.files}


def site_of(folder: Path, server: Orthanc, way: str, **changes: Any) -> Site:
    user = folder / "user"
    user.write_text(f"{USER}:{PASSWORD}\n", encoding="utf-8")
    block: dict[str, Any] = {"timeout_seconds": 10}
    block |= {"url": server.dicomweb_url, "user_file": str(user)} if way == "web" else {"host": "127.0.0.1"}
    block |= {} if way == "web" else {"port": server.port}
    paths = make_site(folder / way)
    text = paths.configuration.read_text(encoding="utf-8")
    paths.configuration.write_text(text + yaml.safe_dump({"pacs": block | changes}), encoding="utf-8")
    return Site(paths, folder / "accessions.csv")


@pytest.mark.parametrize("way", WAYS)
def test_a_list_of_accession_numbers_is_fetched_byte_for_byte(
    tmp_path: Path, pacs: Orthanc, files: list[Path], way: str
) -> None:
    site = site_of(tmp_path, pacs, way)
    status, receipt = site.retrieve("--accessions", site.accessions("ACC0", "ACC2", "NOBODY", "ACC*"))
    assert (status, receipt["outcome"]) == (3, "some-failed")
    assert (receipt["fetched"], receipt["failed"], receipt["instances_here"]) == (2, 2, 6)
    assert [line["line"] for line in receipt["lines"] if line["state"] == "failed"] == [4, 5]
    fetched = {pydicom.dcmread(path).SOPInstanceUID: path for path in (site.paths.received).rglob("*.dcm")}
    wanted = [path for path in files if path.name[0] in "02"]
    assert len(fetched) == len(wanted)
    for path in wanted:
        original = pydicom.dcmread(path)
        copy = pydicom.dcmread(fetched[original.SOPInstanceUID])
        assert copy == original
        assert copy.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
    index = CliRunner().invoke(app, ["index", str(site.paths.root), "--json"])
    assert json.loads(index.stdout)["indexed"] == len(wanted)
    kept = json.loads(next((site.paths.ingest / "receipts").iterdir()).read_text(encoding="utf-8"))
    assert kept == receipt


@pytest.mark.parametrize("way", WAYS)
def test_a_studys_criteria_and_dates_choose(tmp_path: Path, pacs: Orthanc, way: str) -> None:
    site = site_of(tmp_path, pacs, way)
    study = tmp_path / "study.json"
    study.write_bytes(study_of(cohort={"modality": ["DX"], "sex": ["F"], "minimum_patients": 2}).canonical_bytes())
    status, receipt = site.retrieve("--study", study, "--from", "2026-01-02", "--until", "2026-03-31")
    assert (status, receipt["fetched"], receipt["instances_here"]) == (0, 1, 3)
    study.write_bytes(study_of(cohort={"modality": ["CT"], "minimum_patients": 2}).canonical_bytes())
    assert site.retrieve("--study", study)[1]["imaging_studies"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_the_studys_own_days_choose_and_the_options_only_narrow_them(tmp_path: Path, pacs: Orthanc, way: str) -> None:
    site = site_of(tmp_path, pacs, way)
    study = tmp_path / "study.json"
    cohort = {"modality": ["DX"], "date_from": "2026-01-02", "date_until": "2026-01-03", "minimum_patients": 2}
    study.write_bytes(study_of(cohort=cohort).canonical_bytes())
    status, receipt = site.retrieve("--study", study, "--from", "2026-01-03", "--until", "2026-12-31")
    assert (status, receipt["fetched"]) == (0, 1)
    status, receipt = site.retrieve("--study", study)
    assert (status, receipt["imaging_studies"], receipt["fetched"], receipt["already_here"]) == (0, 2, 1, 1)
    status, refused = site.retrieve("--study", study, "--from", "2026-01-04")
    assert status == 1
    assert "No day is left" in refused["said"]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four patients whose series differ in device, protocol, description and modality; the last says nothing of it."""
    folder = tmp_path_factory.mktemp("described")
    headers: list[dict[str, str]] = [
        {
            "Manufacturer": "GE MEDICAL SYSTEMS",
            "ProtocolName": "5.1 Thorax_PA",
            "SeriesDescription": "W033 chest, erect",
        },
        {"Manufacturer": "Siemens", "ProtocolName": "Thorax PA", "SeriesDescription": "Chest erect"},
        {"Manufacturer": "GE", "ProtocolName": "Knee", "SeriesDescription": "Chest erect", "Modality": "EC"},
        {},
    ]
    return [
        save(make_dataset(PIXELS, f"DESCRIBED{number}", StudyDate="20260101", **found), folder / f"{number}.dcm")
        for number, found in enumerate(headers)
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("cohort", "fetched"),
    [
        ({"manufacturer": ["ge"]}, [0, 2, 3]),
        ({"protocol": ["pa thorax"]}, [0, 1, 3]),
        ({"series_description": ["erect chest"], "manufacturer": ["GE Medical"]}, [0, 3]),
        ({"modality": ["US"]}, [2]),  # held under a retired term
    ],
)
def test_what_the_pacs_says_of_a_series_chooses_and_its_silence_does_not(
    tmp_path: Path, described: list[Path], way: str, cohort: dict[str, list[str]], fetched: list[int]
) -> None:
    study = tmp_path / "study.json"
    study.write_bytes(study_of(cohort={"modality": [], "minimum_patients": 2} | cohort).canonical_bytes())
    with orthanc() as server:
        assert len(server.store(described)) == len(described)
        site = site_of(tmp_path, server, way)
        assert site.retrieve("--study", study)[0] == 0
    here = {pydicom.dcmread(path).PatientID for path in site.files}
    assert here == {f"DESCRIBED{number}" for number in fetched}


@pytest.mark.parametrize("way", WAYS)
def test_an_imaging_study_that_vanishes_between_find_and_get_is_one_line(
    tmp_path: Path, pacs: Orthanc, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(tmp_path, pacs, way)
    owner: Any = DicomwebPacs if way == "web" else dimse.DimsePacs
    fetch = owner.fetch

    def vanishing(self: Any, study: str, *words: Any, **named: Any) -> Any:
        if study == uid_of("PATIENT1/study"):
            pacs.delete_imaging_study(study)
        return fetch(self, study, *words, **named)

    monkeypatch.setattr(owner, "fetch", vanishing)
    status, receipt = site.retrieve("--accessions", site.accessions("ACC0", "ACC1", "ACC2"))
    assert (status, receipt["fetched"], receipt["failed"]) == (3, 2, 1)
    assert receipt["lines"][1]["reason"] == "the PACS no longer has it"


@pytest.mark.parametrize("way", WAYS)
def test_a_pacs_that_is_killed_and_started_again_in_mid_run_loses_nothing(
    tmp_path: Path, pacs: Orthanc, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of(tmp_path, pacs, way)
    owner: Any = DicomwebPacs if way == "web" else dimse.DimsePacs
    fetch, echo = owner.fetch, owner.echo

    def dying(self: Any, study: str, *words: Any, **named: Any) -> Any:
        if study == uid_of("PATIENT1/study") and not died:
            died.append(study)
            pacs.kill()
        return fetch(self, study, *words, **named)

    def reviving(self: Any) -> Any:
        if pacs.process is None and len(died) == 1:
            died.append("asked")  # it is still away at the first echo
        elif pacs.process is None:
            pacs.start()
        return echo(self)

    died: list[str] = []
    monkeypatch.setattr(owner, "fetch", dying)
    monkeypatch.setattr(owner, "echo", reviving)
    status, receipt = site.retrieve("--accessions", site.accessions("ACC0", "ACC1", "ACC2"))
    assert (status, receipt["fetched"], receipt["instances_here"]) == (0, 3, 9)
    assert len(died) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_goes_on_and_fetches_nothing_twice(tmp_path: Path, pacs: Orthanc, way: str) -> None:
    site = site_of(tmp_path, pacs, way, instances_per_minute=120)
    numbers = site.accessions("ACC0", "ACC1", "ACC2", "ACC3")
    command = [sys.executable, "-m", "site_node.cli", "retrieve", str(site.paths.root), "--accessions", str(numbers)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(site.here) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait(30)
    before = site.here
    assert 4 <= len(before) < 12
    text = site.paths.configuration.read_text(encoding="utf-8")
    site.paths.configuration.write_text(text.replace("instances_per_minute: 120", ""), encoding="utf-8")
    status, receipt = site.retrieve("--accessions", numbers)
    assert (status, receipt["outcome"], receipt["instances_here"]) == (0, "complete", 12)
    assert receipt["already_here"] >= 1
    after = site.here
    assert len(after) == 12
    assert {name: after[name] for name in before} == before  # not written again


def test_a_run_stops_when_it_is_asked_to_and_says_that_it_goes_on(tmp_path: Path, pacs: Orthanc) -> None:
    site = site_of(tmp_path, pacs, "get", instances_per_minute=60)
    numbers = site.accessions("ACC0", "ACC1", "ACC2", "ACC3")
    command = [sys.executable, "-m", "site_node.cli", "retrieve", str(site.paths.root), "--accessions", str(numbers)]
    run = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not site.here and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 4
    assert json.loads(output)["outcome"] == "stopped"


def test_a_pacs_without_c_get_sends_to_the_sites_own_listener(tmp_path: Path, files: list[Path]) -> None:
    listening_at = free_port()
    with orthanc(listening_at, site={"AllowGet": False}) as server:
        server.store(files)
        site = site_of(tmp_path, server, "get")
        block = yaml.safe_load(site.paths.configuration.read_text(encoding="utf-8"))
        block["listener"] |= {"port": listening_at, "ae_title": "WARDROUND", "callers": [{"ae_title": "PACS"}]}
        block["pacs"]["attempts"] = 1
        site.paths.configuration.write_text(yaml.safe_dump(block), encoding="utf-8")
        status, receipt = site.retrieve("--accessions", site.accessions("ACC0"))
        assert (status, receipt["fetched"]) == (3, 0)
        assert receipt["lines"][0]["reason"] == dimse.HUNG_UP  # Orthanc's way to say that it offers none
        block["pacs"]["move_to"] = "WARDROUND"
        site.paths.configuration.write_text(yaml.safe_dump(block), encoding="utf-8")
        status, receipt = site.retrieve("--accessions", site.accessions("ACC0"))
        assert (status, receipt["fetched"]) == (3, 0)
        assert "is `wardround site listen` running" in receipt["lines"][0]["reason"]
        with running_listener(site.paths):
            status, receipt = site.retrieve("--accessions", site.accessions("ACC0", "ACC3"))
        assert (status, receipt["fetched"], receipt["instances_here"]) == (0, 2, 6)
        assert len(site.here) == 6


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    """One imaging study of forty instances of half a megabyte: accession number LARGE."""
    large = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    return [
        save(make_dataset(large + n, "PATIENT9", str(n), AccessionNumber="LARGE"), tmp_path / "many" / f"{n}.dcm")
        for n in range(40)
    ]


def begun(site: Site) -> "subprocess.Popen[str]":
    """Start a run that fetches LARGE, and wait until a part of it is here."""
    numbers = str(site.accessions("LARGE"))
    command = [sys.executable, "-m", "site_node.cli", "retrieve", str(site.paths.root), "--accessions", numbers]
    run = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(site.files) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    return run


def receipt_of(run: "subprocess.Popen[str]") -> dict[str, Any]:
    said, _ = run.communicate(timeout=120)
    receipt: dict[str, Any] = json.loads(said)
    return receipt


@pytest.mark.parametrize("way", WAYS)
def test_a_pacs_that_is_killed_in_the_middle_of_one_imaging_study_goes_on_there(
    tmp_path: Path, many: list[Path], way: str
) -> None:
    with orthanc() as server:
        assert len(server.store(many)) == len(many)
        site = site_of(tmp_path, server, way)
        run = begun(site)
        server.kill()
        before = site.here
        assert before
        server.start()
        receipt = receipt_of(run)
    assert (receipt["outcome"], receipt["instances_here"]) == ("complete", len(many))
    after = site.here
    assert {name: after[name] for name in before} == before  # none of them was written again


def test_a_listener_that_is_killed_in_the_middle_of_a_c_move_gets_the_rest_when_it_is_back(
    tmp_path: Path, many: list[Path]
) -> None:
    listening_at = free_port()
    with orthanc(listening_at, site={"AllowGet": False}, DicomScuTimeout=5) as server:
        server.store(many)
        site = site_of(tmp_path, server, "get", move_to="WARDROUND", attempts=10)
        block = yaml.safe_load(site.paths.configuration.read_text(encoding="utf-8"))
        block["listener"] |= {"port": listening_at, "ae_title": "WARDROUND", "callers": [{"ae_title": "PACS"}]}
        site.paths.configuration.write_text(yaml.safe_dump(block), encoding="utf-8")
        with running_listener(site.paths) as listener:
            run = begun(site)
            listener.process.kill()
            listener.process.wait(30)
            assert site.here
        with running_listener(site.paths):
            receipt = receipt_of(run)
    assert (receipt["outcome"], receipt["instances_here"]) == ("complete", len(many))
    assert len(site.here) == len(many)


def test_wrong_credentials_and_titles_end_the_run_with_what_to_do(tmp_path: Path, pacs: Orthanc) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("get", {"our_ae_title": "STRANGER"}, "the PACS"),
        ("get", {"ae_title": "OTHER"}, "another AE title"),
        ("get", {"port": free_port(), "patience_minutes": 0}, "does not answer"),
        ("web", {"user_file": str(tmp_path / "wrong")}, "refuses our credentials"),
        ("web", {"url": f"http://127.0.0.1:{free_port()}/dicom-web", "patience_minutes": 0}, "does not answer"),
    ]
    (tmp_path / "wrong").write_text("ward:wrong", encoding="utf-8")
    for number, (way, changes, told) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        site = site_of(folder, pacs, way, **changes)
        status, receipt = site.retrieve("--accessions", site.accessions("ACC0"))
        assert status == (4 if "patience_minutes" in changes else 1), (changes, receipt)
        assert told in receipt["error"]["message"]
        assert receipt["error"]["remedy"]
        status, said = site.retrieve("--echo")
        assert status == 1
        assert told in said["said"]
        assert f"{receipt['error']['message'].rstrip('.')}. " in said["said"]  # a sentence, and then the remedy


@pytest.mark.parametrize("way", WAYS)
def test_echo_says_that_the_pacs_is_there(tmp_path: Path, pacs: Orthanc, way: str) -> None:
    status, answer = site_of(tmp_path, pacs, way).retrieve("--echo")
    assert status == 0
    assert answer["answer"] in ("C-ECHO answered by PACS", "QIDO-RS answered")


def test_only_one_run_at_a_time_and_nothing_without_a_choice(tmp_path: Path, pacs: Orthanc) -> None:
    site = site_of(tmp_path, pacs, "web")
    assert "Nothing says what to fetch" in site.retrieve()[1]["said"]
    from site_node.ingest.retrieval_run import _alone

    with _alone(site.paths.ingest / "retrieval.lock"):
        status, said = site.retrieve("--accessions", site.accessions("ACC0"))
    assert status == 1
    assert "already" in said["said"]


def test_dicom_over_tls_trusts_the_bundle_that_is_named_and_no_other(tmp_path: Path, files: list[Path]) -> None:
    authority, stranger = Authority.make(tmp_path / "ca"), Authority.make(tmp_path / "other")
    certificate, key = authority.sign("pacs")
    tls: dict[str, Any] = {
        "DicomTlsEnabled": True, "DicomTlsCertificate": str(certificate), "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(authority.file), "DicomTlsRemoteCertificateRequired": False,
    }  # fmt: skip
    with orthanc(**tls) as server:
        server.store(files[:3])
        for number, (trusted, expected) in enumerate(((authority, 0), (stranger, 1))):
            folder = tmp_path / str(number)
            folder.mkdir()
            site = site_of(folder, server, "get", tls={"ca": str(trusted.file)}, patience_minutes=0)
            status, answer = site.retrieve("--echo")
            assert status == expected, answer
            assert expected == 0 or "TLS" in answer["said"]
            if expected == 0:
                assert site.retrieve("--accessions", site.accessions("ACC0"))[1]["instances_here"] == 3


def test_a_pacs_that_knows_no_c_get_at_all_is_told_from_one_that_refuses_us(tmp_path: Path) -> None:
    entity = AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        settings = PacsSettings(host="127.0.0.1", port=server.server_address[1])
        with pytest.raises(PacsRefusedError, match="no C-GET") as raised:
            dimse.DimsePacs(settings).fetch("1", "2", [FoundInstance("3", None)], whole=True, receive=lambda _: None)
        assert "pacs.move_to" in raised.value.remedy
        with pytest.raises(PacsRefusedError, match="does not offer us this service"):
            dimse.DimsePacs(settings).echo()
    finally:
        server.shutdown()


@pytest.mark.shared
@pytest.mark.parametrize("way", WAYS)
def test_odd_files_come_as_the_pacs_holds_them_or_have_a_line(tmp_path: Path, way: str) -> None:
    odd = [path for path in sorted(DATA.rglob("*")) if path.is_file() and path.suffix != ".csv"]
    with orthanc() as server:
        assert len(server.store(odd)) > 300
        with server.rest() as http:
            held = http.get("/statistics").json()["CountInstances"]
        site = site_of(tmp_path, server, way, attempts=1)
        study = tmp_path / "study.json"
        study.write_bytes(study_of(cohort={"minimum_patients": 2}).canonical_bytes())
        status, receipt = site.retrieve("--study", study)
    assert status == 3
    # one imaging study has no UID at all: nobody can ask for it. Orthanc itself cannot send a few of the others.
    assert receipt["instances_listed"] >= held - 1
    told = [line for line in receipt["lines"] if line["state"] == "failed" or line["quarantined"]]
    assert all(line["reason"] for line in told)
    lost = sum(line["listed"] - line["here"] - line["quarantined"] for line in told if line["state"] == "failed")
    assert receipt["instances_here"] + receipt["instances_quarantined"] + lost == receipt["instances_listed"]
    assert lost <= 5
    syntaxes = {str(pydicom.dcmread(path, force=True).file_meta.TransferSyntaxUID) for path in site.files}
    assert len(syntaxes) >= 10  # as they lie in the PACS, not converted


def test_an_association_that_was_hung_up_on_while_idle_is_opened_again(pacs: Orthanc) -> None:
    fetcher = dimse.DimsePacs(PacsSettings(host="127.0.0.1", port=pacs.port))
    assert len(fetcher.find("STUDY", {})) == PATIENTS
    pacs.kill()
    pacs.start()
    assert len(fetcher.find("STUDY", {})) == PATIENTS
    fetcher.close()


def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(OrthancMissingError, match="make pacs"), orthanc():
        pass
