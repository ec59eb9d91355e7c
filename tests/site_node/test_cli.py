"""`wardround site`: what an administrator types, and the one clear message for what goes wrong."""

import json
import os
import stat
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from protocol.digest import digest_of_bytes
from protocol.messages import Reason, Receipt, expect
from protocol.signing import SigningKey, open_envelope
from site_node.budget_report import percent
from site_node.cli import app
from site_node.errors import SettingsError
from site_node.governance.approval import decisions_on, set_decisions_aside
from site_node.governance.egress import without_receipt
from site_node.governance.records import open_records, set_study, study_records
from site_node.settings import SitePaths, load_settings
from site_node.sqlite import transaction
from tests.fakes.gated_site import GatedSite, study_of
from tests.fakes.site_command import run


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "images").mkdir()
    site = str(tmp_path / "site")
    status, output = run(
        "init", site, "--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", str(tmp_path / "images")
    )
    assert status == 0, output
    return site


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_keys_and_folders_that_only_their_process_can_read(folder: str) -> None:
    paths = SitePaths(Path(folder))
    assert {mode(path) for path in (paths.identity_key, paths.transport_key, paths.noise_key)} == {0o600}
    assert {mode(path) for path in (paths.gate, paths.agent, paths.worker)} == {0o2700}
    assert len({path.read_bytes() for path in (paths.identity_key, paths.transport_key, paths.noise_key)}) == 3
    settings = load_settings(Path(folder))
    assert settings.name == "st-anna"
    assert settings.labels == settings.images[0] / "labels.csv"


def test_init_does_not_touch_a_site_that_is_there(folder: str, tmp_path: Path) -> None:
    before = SitePaths(Path(folder)).identity_key.read_bytes()
    status, output = run("init", folder, "--name", "b", "--hub", "http://h", "--images", str(tmp_path / "images"))
    assert (status, "there already" in output) == (1, True)
    assert SitePaths(Path(folder)).identity_key.read_bytes() == before


def test_a_hub_that_is_not_there_is_told_with_the_remedy(folder: str) -> None:
    status, output = run("enroll", folder, "--code", "ABC")
    assert status == 1
    assert "does not answer" in output
    assert "Traceback" not in output


def test_enrolling_prints_the_hub_s_key_as_json_too(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.from_seed(b"\x07" * 32).public
    monkeypatch.setattr("site_node.enrolment.enroll_site", lambda *_: key)
    status, output = run("enroll", folder, "--code", "ABC", "--json")
    assert status == 0, output
    found = json.loads(output)
    assert (found["hub_key"], found["fingerprint"]) == (key.text, key.key_id)
    status, output = run("enroll", folder, "--code", "ABC")
    assert f"Its fingerprint: {key.key_id}" in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "not YAML at line"),
        ("name: st-anna", "hub: Field required"),
        ("name: St Anna\nhub: http://h\nimages: [x]", "name:"),
        ("name: a\nhub: ftp://h\nimages: [x]\ncolour: red", "colour"),
    ],
)
def test_a_broken_site_yaml_is_told_with_its_fault(folder: str, text: str, words: str) -> None:
    (Path(folder) / "site.yaml").write_text(text)
    status, output = run("status", folder)
    assert status == 1
    assert words in output
    with pytest.raises(SettingsError):
        load_settings(Path(folder))


@pytest.mark.parametrize("command", ["gate", "agent"])
def test_a_site_that_never_enrolled_is_told_to(folder: str, command: str) -> None:
    status, output = run(command, folder)
    assert status == 1
    assert "site enroll" in output


def test_a_study_is_approved_by_the_beginning_of_its_digest_and_withdrawn(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nminimum_patients: 1\n")
    study, folder = study_of(), str(site.paths.root)
    site.join(study)
    assert run("approve", folder, "sha256:ffffffffffff")[0] == 1
    status, output = run("approve", folder, study.digest[7:20], "--person", "Dr Grey", "--yes")
    assert status == 0, output
    site.now = time.time()
    site.sweep()
    assert [record.state for record in study_records(open_records(site.paths))] == ["approved"]
    assert json.loads(run("studies", folder, "--json")[1])[0]["decided_by"] == "Dr Grey"
    assert json.loads(run("budget", folder, "--json")[1])["epsilon"] > 0
    site.receive_all()
    site.sweep()
    entries = json.loads(run("egress", folder, "--json")[1])
    assert entries[0]["receipt"]["accepted"] is True
    verified = json.loads(run("egress", folder, "--verify")[1])
    assert (verified["receipts"], verified["waiting"], verified["waiting_means"]) == (2, [], None)
    assert run("approve", folder, study.digest, "--withdraw")[0] == 0
    site.sweep()
    assert json.loads(run("status", folder, "--json")[1])["studies"] == {study.digest: "withdrawn"}


PERSON = "approval: person\nmodalities: any\nminimum_patients: 1\n"


def test_nobody_signs_before_the_patients_are_counted(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study, folder = study_of(), str(site.paths.root)
    site.propose(study)
    site.sweep()
    status, output = run("approve", folder, study.digest, "--yes")
    assert (status, "still being counted" in output, "awaiting" in output) == (1, True, True)
    assert "not known yet" in run("studies", folder, "--show", "tiny")[1]
    assert run("approve", folder, study.digest, "--refuse")[0] == 0  # to refuse, no figure is needed


def test_a_study_that_the_patients_do_not_fit_cannot_be_approved_and_the_hub_hears_of_it_by_a_refusal_alone(
    tmp_path: Path,
) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study, folder = study_of(), str(site.paths.root)
    site.propose(study)
    site.sweep()
    site.count_cohort(study, problem=Reason.TOO_FEW_PATIENTS)
    site.sweep()
    [listed] = json.loads(run("studies", folder, "--json")[1])
    assert (listed["state"], listed["reason"]) == ("awaiting", "too-few-patients")
    assert "--refuse" in run("studies", folder)[1]
    status, output = run("approve", folder, study.digest, "--yes")
    assert (status, "cannot be approved" in output, "--refuse" in output) == (1, True, True)
    site.sweep()
    assert site.everything_sent() == []
    assert run("approve", folder, study.digest, "--refuse")[0] == 0
    site.sweep()
    assert [answer.reason for answer in site.answers(study)] == [Reason.NOT_APPROVED]


def test_who_approves_reads_what_a_policy_would_have_held_up(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, "approval: person\nmodalities: any\n")
    study, folder = study_of(), str(site.paths.root)
    site.propose(study)
    site.sweep()
    site.count_cohort(study, held_out=3)
    site.sweep()
    status, output = run("approve", folder, study.digest, "--yes")
    assert (status, "Mind: Its un-noised evaluation judges fewer than 10" in output) == (0, True)


def test_a_study_is_read_whole_before_it_is_signed_and_the_answer_no_decides_nothing(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study, folder = study_of(), str(site.paths.root)
    site.join(study)
    status, shown = run("studies", folder, "--show", "tiny")
    assert status == 0
    for words in (
        "modality DX", "classes no / yes", "Differential privacy by dp-sgd", "the hub sees it by itself",
        "NOT NOISED", "40 training patients", "0.0% is used before the study", "e^epsilon", study.digest,
    ):  # fmt: skip
        assert words in shown
    asked = CliRunner().invoke(app, ["approve", folder, study.digest], input="n\n")
    assert (asked.exit_code, shown in asked.output, "Nothing was decided" in asked.output) == (1, True, True)
    assert json.loads(run("studies", folder, "--json")[1])[0]["standing"] == "undecided"
    asked = CliRunner().invoke(app, ["approve", folder, study.digest, "--person", "Dr Grey"], input="y\n")
    assert asked.exit_code == 0, asked.output
    [listed] = json.loads(run("studies", folder, "--json")[1])
    assert (listed["decided_by"], listed["mechanism"]) == ("Dr Grey", "dp-sgd")
    assert listed["decided_under_account"] not in (None, "Dr Grey")


def test_a_study_that_was_counted_anew_while_it_was_read_is_not_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study, folder = study_of(), str(site.paths.root)
    site.join(study)

    def counted_anew_meanwhile(_: str) -> bool:
        with transaction(open_records(site.paths)) as database:
            set_decisions_aside(database, study.digest)
            set_study(database, study.digest, training_patients=39)
        return True

    monkeypatch.setattr("typer.confirm", counted_anew_meanwhile)
    status, output = run("approve", folder, study.digest)
    assert (status, "not what was read" in output) == (1, True)
    assert decisions_on(open_records(site.paths), study.digest) == []
    monkeypatch.undo()
    status, output = run("approve", folder, study.digest, "--yes")
    assert (status, "39 training patients" in output) == (0, True)


def test_what_is_signed_can_be_had_byte_for_byte(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    study, folder = study_of(), str(site.paths.root)
    site.join(study)
    printed = CliRunner().invoke(app, ["studies", folder, "--show", study.digest, "--yaml"]).stdout_bytes
    assert digest_of_bytes(printed) == study.digest
    assert yaml.safe_load(printed)["name"] == "tiny"
    assert json.loads(run("studies", folder, "--show", "tiny", "--json")[1])["specification"]["name"] == "tiny"
    assert run("studies", folder, "--yaml")[0] == 1


def test_the_summary_says_on_whom_shared_noise_and_masks_rely_and_what_a_charged_study_used(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path)
    study, folder = study_of(), str(site.paths.root)
    site.join(study)
    used = json.loads(run("budget", folder, "--json")[1])["share_used"]
    shown = run("studies", folder, "--show", "tiny")[1]
    assert 0 < used < 1
    assert f"0.0% is used before the study, and {used:.1%} after it" in shown
    shared = study_of(
        training={"local_steps": 1, "sampling_rate": 0.2},
        privacy={"epsilon": 4.0, "delta": 1e-4, "mechanism": "shared-noise"},
        secure_aggregation={"method": "masking", "maximum_sites": 10, "maximum_weight": 100},
        transport={"upload": []},
        participants={"minimum_sites": 8, "training_patients": 100},
    )
    site.propose(shared)
    site.sweep()
    shown = run("studies", folder, "--show", shared.digest)[1]
    for words in ("The OTHER HOSPITALS", "at most 30%", "honest_fraction 0.7", "under masks", "sum alone"):
        assert words in shown


def test_the_policy_says_what_it_means_for_the_studies_that_were_proposed(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path, PERSON)
    site.join(study_of())
    folder = str(site.paths.root)
    assert "study tiny" in run("policy", folder)[1]
    assert run("policy", folder)[1].rstrip().endswith("allowed")
    site.settings.policy.write_text(PERSON + "maximum_epsilon: 1\n")
    assert "above `maximum_epsilon`" in run("policy", folder)[1]


def test_an_account_without_a_name_decides_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = GatedSite.make(tmp_path, "approval: person\nmodalities: any\nminimum_patients: 1\n")
    study, folder = study_of(), str(site.paths.root)
    site.join(study)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    status, output = run("approve", folder, study.digest, "--yes")
    assert status == 0, output
    assert f"by uid-{2**31 - 7}." in output


def test_everything_that_left_can_be_exported_and_checked_by_somebody_else(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path)
    folder, target = str(site.paths.root), tmp_path / "egress.json"
    site.join(study_of())
    site.receive_all()
    site.sweep()
    assert run("egress", folder, "--export", str(target))[0] == 0
    document = json.loads(target.read_bytes())
    assert [entry["entry"]["kind"] for entry in document["entries"]] == [
        "wardround.ledger-charge/1",
        "wardround.approval/1",
    ]
    own = SigningKey.load_or_create(site.paths.identity_key).public
    for entry in document["entries"]:
        message = open_envelope(entry["envelope"].encode(), own)
        receipt = expect(open_envelope(entry["receipt"].encode(), site.hub.public), Receipt)
        assert receipt.message_digest == digest_of_bytes(message) == entry["entry"]["message_digest"]
    assert mode(target) == 0o600
    status, output = run("egress", folder, "--export", str(target))
    assert (status, "there already" in output) == (1, True)


def test_verify_names_what_has_no_receipt_yet_and_says_that_it_is_normal(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path)
    site.join(study_of())
    found = json.loads(run("egress", str(site.paths.root), "--verify")[1])
    assert [(entry["number"], entry["kind"]) for entry in found["waiting"]] == [
        (1, "wardround.ledger-charge/1"),
        (2, "wardround.approval/1"),
    ]
    assert found["ok"] is True
    assert "normal" in found["waiting_means"]
    aged = without_receipt(open_records(site.paths), site.now + 90)
    assert [entry["age_seconds"] for entry in aged] == [90, 90]


def test_the_budget_is_shown_in_sentences(tmp_path: Path) -> None:
    site = GatedSite.make(tmp_path)
    site.join(study_of())
    status, output = run("budget", str(site.paths.root))
    assert status == 0
    for words in (
        "Lifetime budget of each patient: epsilon 24",
        "order 2",
        "Used of it at most",
        "e^epsilon",
        "not yet countersigned",
        "still fits",
    ):
        assert words in output
    lines = [line for line in output.splitlines() if "epsilon" in line]
    assert lines
    assert all("delta" in line for line in lines)
    assert "at delta 0.0001 (the study's own)" in output


@pytest.mark.parametrize(("share", "said"), [(0.0, "0.0%"), (1e-5, "less than 0.1%"), (0.25, "25.0%"), (1.0, "100.0%")])
def test_a_small_charge_is_never_called_none(share: float, said: str) -> None:
    assert percent(share) == said


def test_pause_and_resume(folder: str) -> None:
    assert run("pause", folder)[0] == 0
    assert json.loads(run("status", folder, "--json")[1])["paused"] is True
    assert run("resume", folder)[0] == 0
    assert json.loads(run("status", folder, "--json")[1])["paused"] is False


def test_a_worker_without_enrolment_or_redis_ends_at_once_with_the_remedy(folder: str) -> None:
    (Path(folder) / "site.yaml").write_text(
        (Path(folder) / "site.yaml").read_text().replace("redis://127.0.0.1:6379/0", "redis://:secret@127.0.0.1:9/0")
    )
    status, output = run("worker", folder)
    assert (status, "site enroll" in output) == (1, True)
    SitePaths(Path(folder)).hub_key.write_text("enrolled")
    status, output = run("worker", folder)
    assert (status, "does not answer" in output, "secret" in output) == (1, True, False)
    assert "Start it" in output


@pytest.mark.parametrize(
    ("hub", "warned"), [("http://10.0.0.7:1", True), ("https://h", False), ("http://[::1]:1", False)]
)
def test_init_warns_of_a_way_to_the_hub_that_is_not_encrypted(tmp_path: Path, hub: str, warned: bool) -> None:
    status, output = run("init", str(tmp_path / "s"), "--name", "a", "--hub", hub, "--images", str(tmp_path))
    assert (status, "not encrypted" in output) == (0, warned)


def test_what_a_command_writes_others_cannot_read(folder: str) -> None:
    old = os.umask(0)
    try:
        assert run("status", folder)[0] == 0
        assert {mode(path) & 0o007 for path in Path(folder).rglob("*")} == {0}
    finally:
        os.umask(old)


def test_other_hospitals_keys_are_shown_and_pinned_with_their_fingerprints(folder: str) -> None:
    status, output = run("peers", folder)
    assert status == 0
    assert "st-anna (this hospital)" in output
    assert "masked rounds are refused" in output
    key = SigningKey.generate().public
    status, output = run("pin", folder, "north", key.text)
    assert status == 0
    assert "Its administrator must read you this fingerprint" in output
    shown = json.loads(run("peers", folder, "--json")[1])
    assert shown["pinned"]["north"]["key"] == key.text
    assert shown["pinned"]["north"]["fingerprint"].replace(" ", "") == key.key_id.removeprefix("sha256:")
    assert shown["key"] == SigningKey.load_or_create(SitePaths(Path(folder)).identity_key).public.text
    status, output = run("pin", folder, "north", SigningKey.generate().public.text)
    assert (status, "Another key is pinned for north" in output) == (1, True)
    status, output = run("pin", folder, "south", "BADKEY")
    assert (status, "The key that was given is none" in output, "peers.yaml" in output) == (1, True, False)
    status, output = run("pin", folder, "st-anna", key.text)
    assert (status, "st-anna is this hospital itself" in output) == (1, True)


@pytest.mark.parametrize("spoilt", ["envelope", "receipts", "last entry"])
def test_verify_fails_on_what_was_changed_behind_the_gate(tmp_path: Path, spoilt: str) -> None:
    site = GatedSite.make(tmp_path)
    site.join(study_of())
    site.receive_all()
    site.sweep()
    folder, database = str(site.paths.root), open_records(site.paths)
    listed = run("egress", folder)[1].splitlines()
    assert max(map(len, listed)) <= 100
    assert "tiny" in listed[1]
    assert run("egress", folder, "--verify")[0] == 0
    if spoilt == "envelope":
        database.execute("UPDATE envelopes SET envelope = (SELECT envelope FROM envelopes WHERE number = 1)")
    elif spoilt == "receipts":
        database.execute("DELETE FROM receipts")
    else:
        database.execute("DROP TRIGGER egress_stays")
        database.execute("DELETE FROM egress WHERE number = 2")
        database.execute("DELETE FROM envelopes WHERE number = 2")
        database.execute("DELETE FROM receipts WHERE number = 2")
    status, output = run("egress", folder, "--verify")
    found = json.loads(output)
    assert (status, found["ok"], bool(found["faults"])) == (1, False, True)
