"""The reading API: codes and never names, no picture with text in it, blinded readings, and a record of every view."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from protocol.study import StudySpec, parse_study
from site_node.api.roles import READING_PAGES, ROLES, Role, may_call
from site_node.api.tokens import open_tokens, reading_token, revoke_token
from site_node.cli import app as site_app
from site_node.cohort.index import index_folder
from site_node.opt_outs import record_opt_outs
from site_node.reading.codes import CASE_CODE, case_code
from site_node.reading.rooms import open_room
from tests.benchmarks.burnt_in_text import burn
from tests.fakes.api_caller import Caller
from tests.fakes.dicom import make_dataset, make_hospital, radiograph, save, write_labels
from tests.fakes.reading_site import NOW, ReadingSite, told
from tests.fakes.series import make_volume_hospital

STUDY: dict[str, Any] = {
    "name": "read-me",
    "cohort": {"modality": ["DX"], "minimum_patients": 2},
    "label": {"classes": ["clear", "spotted"]},
    "network": {"name": "convnet"},
    "preprocessing": {"size": [16, 16]},
    "training": {"local_steps": 2, "sampling_rate": 0.2},
    "rounds": 2,
    "participants": {"training_patients": 20},
    "privacy": {"epsilon": 4.0, "delta": 1e-3},
}
PATIENTS = 30


def study_of(**changes: Any) -> StudySpec:
    return parse_study({**STUDY, **changes})


def held_out(number: int) -> str:
    return "test" if number >= PATIENTS // 2 else "train"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    return make_hospital(folder, PATIENTS, size=64, split=held_out, prefix="Meier").folder


@pytest.fixture
def site(tmp_path: Path, images: Path) -> ReadingSite:
    return ReadingSite.make(tmp_path, images)


def opened(site: ReadingSite, study: StudySpec | None = None) -> StudySpec:
    study = study or study_of()
    open_room(site.settings, study, "anna", NOW)
    return study


def codes_of(caller: Caller, study: StudySpec) -> list[str]:
    return [entry["case"] for entry in caller.get(f"/v1/studies/{study.digest}/cases").json()]


def paths_of(study: StudySpec, code: str) -> dict[str, tuple[str, str, dict[str, Any] | None]]:
    of_study = f"/v1/studies/{study.digest}"
    return {
        "reader": ("GET", "/v1/me", None),
        "index": ("GET", "/v1/index", None),
        "readiness": ("GET", f"{of_study}/readiness", None),
        "examine": ("POST", f"{of_study}/readiness", told(study)),
        "rooms": ("GET", "/v1/rooms", None),
        "open_room": ("POST", f"{of_study}/room", told(study)),
        "cases": ("GET", f"{of_study}/cases", None),
        "case": ("GET", f"/v1/cases/{code}", None),
        "image": ("GET", f"/v1/cases/{code}/image", None),
        "read": ("POST", f"/v1/cases/{code}/reading", {"labels": ["clear"], "confidence": 3}),
        "readings": ("GET", f"{of_study}/readings", None),
        "views": ("GET", "/v1/views", None),
    }


def all_answers(caller: Caller, study: StudySpec, code: str) -> Iterator[tuple[Any, Any]]:
    for page, (method, path, body) in paths_of(study, code).items():
        yield page, caller.call(method, path, **({} if body is None else {"json": body}))


def code_in(site: ReadingSite, study: StudySpec) -> str:
    return next(iter(open_room(site.settings, study, "anna", NOW).cases))


@pytest.mark.parametrize("role", ROLES)
def test_each_page_is_answered_to_whom_the_table_names_and_kept_by_no_cache(site: ReadingSite, role: Role) -> None:
    site.check = lambda *_: None
    study = opened(site)
    code = code_in(site, study)
    assert set(paths_of(study, code)) == set(READING_PAGES)
    for page, answer in all_answers(site.caller(role), study, code):
        assert (answer.status_code < 300, answer.status_code == 403) == (may_call(role, page), not may_call(role, page))
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("token", [None, "", "wrr_guess"])
def test_without_a_token_nothing_is_answered(site: ReadingSite, token: str | None) -> None:
    study = opened(site)
    for _, answer in all_answers(site.with_token(token), study, code_in(site, study)):
        assert (answer.status_code, study.name in answer.text) == (401, False)


def test_the_token_of_the_site_s_api_does_not_open_this_one_nor_the_other_way_round(site: ReadingSite) -> None:
    token = site.token("administrator")
    assert site.with_token(token).get("/v1/me").status_code == 401
    assert site.with_token(reading_token(token)).get("/v1/me").json()["role"] == "administrator"
    with open_tokens(site.paths) as tokens:
        from site_node.api.tokens import caller_of

        assert caller_of(tokens, reading_token(token), site.now) is None
    published = (site.paths.orders / "readers.list").read_text()
    assert not [secret for secret in (token, reading_token(token)) if secret.removeprefix("wrs_")[4:] in published]


def test_a_token_that_ended_or_was_revoked_opens_nothing(site: ReadingSite) -> None:
    caller = site.caller("clinician", "clara")
    assert caller.get("/v1/rooms").status_code == 200
    site.now += 91 * 86400
    assert caller.get("/v1/rooms").status_code == 401
    site.now = NOW
    run = CliRunner().invoke(site_app, ["tokens", "add", str(site.paths.root), "dora", "--role", "auditor"])
    dora = site.with_token(reading_token(run.stdout.strip()))
    site.now = 0.0  # before the end of a token that was made by the real clock
    assert dora.get("/v1/rooms").status_code == 200
    assert CliRunner().invoke(site_app, ["tokens", "revoke", str(site.paths.root), "dora"]).exit_code == 0
    assert dora.get("/v1/rooms").status_code == 401


def test_the_commands_do_not_print_digests_of_tokens(site: ReadingSite) -> None:
    site.token("auditor")
    with open_tokens(site.paths) as tokens:
        revoke_token(tokens, "some-auditor", site.now)
    assert (
        CliRunner().invoke(site_app, ["tokens", "add", str(site.paths.root), "o", "--role", "auditor"]).exit_code == 0
    )
    [entry] = json.loads(CliRunner().invoke(site_app, ["tokens", "list", str(site.paths.root), "--json"]).stdout)
    assert set(entry) == {"name", "role", "made_at", "ends_at"}


def test_the_index_is_told_in_tens_without_a_file_or_patient(site: ReadingSite, images: Path) -> None:
    (images / "broken.dcm").write_bytes(b"\0" * 200)
    index_folder([images], site.paths.index, labels=site.settings.labels)
    page = site.caller("auditor").get("/v1/index").json()
    (images / "broken.dcm").unlink()
    assert page["found"] == {"patients": 30, "imaging_studies": 30, "series": 30, "images": 60}
    assert page["modalities"] == {"DX": {"patients": 30, "images": 60}}
    assert page["roots"] == [
        {"folder": str(images), "there": True},
        {"folder": str(site.paths.received), "there": True},
    ]
    assert [number for reason, number in page["unusable"].items() if "DICOM" in reason] == [None]
    assert "Meier" not in json.dumps(page)
    assert "broken" not in json.dumps(page)


def test_a_site_that_is_not_indexed_says_so(site: ReadingSite) -> None:
    site.paths.index.unlink()
    answer = site.caller("administrator").get("/v1/index")
    assert (answer.status_code, "not indexed" in answer.json()["message"]) == (409, True)


def test_readiness_is_looked_at_apart_and_its_report_is_kept(site: ReadingSite) -> None:
    study, caller = study_of(), site.caller("administrator", "anna")
    path = f"/v1/studies/{study.digest}/readiness"
    assert caller.get(path).json()["state"] == "none"
    thread = caller.app.state.jobs.ask(study, "anna", measures=False)
    assert caller.get(path).json()["state"] in {"looking", "done"}
    thread.join()
    found = caller.get(path).json()
    assert (found["state"], found["report"]["study_digest"], found["asked_by"]) == ("done", study.digest, "anna")
    assert found["report"]["patients"]["patients"] == 30
    assert "Meier" not in json.dumps(found)
    assert site.caller("auditor").get(path).json()["report"] == found["report"]


def test_a_check_that_gives_no_report_has_failed_and_another_may_follow(site: ReadingSite) -> None:
    site.check = lambda *_: None
    caller, study = site.caller("administrator"), study_of()
    for _ in range(2):
        caller.app.state.jobs.ask(study, "anna", measures=False).join()
        assert caller.get(f"/v1/studies/{study.digest}/readiness").json()["state"] == "failed"


def test_a_study_is_taken_by_its_digest_alone(site: ReadingSite) -> None:
    caller, study, other = site.caller("administrator"), study_of(), study_of(name="another")
    for page in ("room", "readiness"):
        answer = caller.post(f"/v1/studies/{study.digest}/{page}", json=told(other))
        assert (answer.status_code, "not that of this digest" in answer.json()["message"]) == (422, True)
        answer = caller.post(f"/v1/studies/{study.digest}/{page}", json={"specification": {"name": "secret word"}})
        assert (answer.status_code, "secret" in answer.text) == (422, False)
    assert caller.get("/v1/rooms").json() == []


def test_a_room_holds_the_held_out_patients_under_codes_that_are_no_pseudonyms(site: ReadingSite) -> None:
    administrator, study = site.caller("administrator", "anna"), study_of()
    answer = administrator.post(f"/v1/studies/{study.digest}/room", json=told(study))
    assert (answer.status_code, answer.json()["cases"], answer.json()["opened_by"]) == (200, 15, "anna")
    room = open_room(site.settings, study, "somebody else", NOW)
    assert room.opened_by == "anna"  # it stays as it was opened
    assert {patient.split for patient in room.cases.values()} == {"test"}
    codes = codes_of(site.caller("clinician"), study)
    assert len(codes) == 15 == len([code for code in codes if CASE_CODE.fullmatch(code)])
    ids = [room.cases[code].key for code in codes]
    assert ids != sorted(ids)
    other = open_room(site.settings, study_of(name="another"), "anna", NOW)
    assert not set(codes) & set(other.cases)


def test_a_code_cannot_be_made_without_the_key() -> None:
    digest = study_of().digest
    assert (
        case_code(b"1" * 32, digest, "P1") == case_code(b"1" * 32, digest, "P1") != case_code(b"2" * 32, digest, "P1")
    )


def test_a_picture_is_eight_grey_bits_of_a_de_identified_copy_with_nothing_beside(site: ReadingSite) -> None:
    study = opened(site)
    clinician = site.caller("clinician", "clara")
    [code, *_] = codes_of(clinician, study)
    answer = clinician.get(f"/v1/cases/{code}/image?image=1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    picture = Image.open(BytesIO(answer.content))
    assert (picture.mode, picture.size, picture.info) == ("L", (64, 64), {})
    patient = open_room(site.settings, study, "anna", NOW).cases[code]
    stored = pydicom.dcmread(patient.images[1].path).pixel_array
    low, high = np.percentile(stored, (0.5, 99.5))
    wanted = np.clip((stored - low) / (high - low), 0, 1) * 255
    assert np.abs(np.asarray(picture) - wanted).max() <= 1
    for secret in (patient.key, "Meier", patient.images[1].sop_instance_uid):
        assert secret.encode() not in answer.content
    assert clinician.get(f"/v1/cases/{code}/image?image=2").status_code == 404
    assert clinician.get(f"/v1/cases/{code}/image?slice=-1").status_code == 404


def test_no_answer_names_a_patient_a_file_or_an_instance(site: ReadingSite, images: Path) -> None:
    study = opened(site)
    code = code_in(site, study)
    texts = [answer.text for role in ROLES for _, answer in all_answers(site.caller(role), study, code)]
    rows = (images / "labels.csv").read_text().splitlines()[1:]
    secrets = {word for row in rows for word in row.split(",")[:3]}
    assert len(secrets) == 30 + 60 + 60
    assert not [secret for secret in secrets for text in texts if secret in text]


def test_a_picture_with_text_burnt_in_is_refused_and_the_refusal_recorded(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "named"
    hospital = make_hospital(folder, 8, size=64, images_per_patient=1, split=lambda n: "test" if n > 3 else "train")
    made = burn(radiograph(False, 256, np.random.default_rng(5)), "Meier, Anna", 20, "box", np.random.default_rng(7))
    assert made is not None
    uid = save(make_dataset(made.picture, "P0007", "named"), folder / "named.dcm")
    row = {**hospital.rows[7], "sop_instance_uid": str(pydicom.dcmread(uid).SOPInstanceUID), "file": "named.dcm"}
    write_labels(folder / "labels.csv", [*hospital.rows[:7], row])
    site = ReadingSite.make(tmp_path, folder)
    study = opened(site)
    room = open_room(site.settings, study, "anna", NOW)
    [code] = [code for code, patient in room.cases.items() if patient.key == "P0007"]
    answer = site.caller("clinician", "clara").get(f"/v1/cases/{code}/image")
    assert (answer.status_code, "text is burnt into" in answer.json()["message"]) == (409, True)
    [view] = site.caller("auditor").get("/v1/views").json()
    assert (view["case_code"], view["outcome"].startswith("refused: text is burnt")) == (code, True)


def test_every_view_is_recorded_with_who_which_case_and_when(site: ReadingSite) -> None:
    study = opened(site)
    clinician = site.caller("clinician", "clara")
    codes = codes_of(clinician, study)[:2]
    for number, code in enumerate(codes):
        site.now = NOW + number
        assert clinician.get(f"/v1/cases/{code}/image").status_code == 200
    views = site.caller("auditor").get("/v1/views").json()
    seen = [(view["at"], view["person"], view["case_code"], view["outcome"]) for view in views]
    assert seen == [(NOW, "clara", codes[0], "shown"), (NOW + 1, "clara", codes[1], "shown")]
    assert site.with_token(clinician.headers["Authorization"].split()[1]).get("/v1/views").status_code == 403
    assert len(site.with_token(None).get("/v1/views").json()) == 2  # a message and its remedy: no view


def test_the_label_is_told_after_the_reading_and_a_reading_stands(site: ReadingSite) -> None:
    study = opened(site)
    clinician, colleague = site.caller("clinician", "clara"), site.caller("clinician", "dirk")
    room = open_room(site.settings, study, "anna", NOW)
    code, patient = next((code, patient) for code, patient in room.cases.items() if patient.label == 1)
    before = clinician.get(f"/v1/cases/{code}").json()
    assert (before["reading"], before["site_labels"], before["slices"]) == (None, None, [1, 1])
    assert "spotted" not in json.dumps(before)
    given = clinician.post(f"/v1/cases/{code}/reading", json={"labels": ["clear"], "confidence": 2})
    assert (given.status_code, given.json()["site_labels"]) == (200, ["spotted"])
    again = clinician.post(f"/v1/cases/{code}/reading", json={"labels": ["spotted"], "confidence": 5})
    assert (again.status_code, "already" in again.json()["message"]) == (409, True)
    assert clinician.get(f"/v1/cases/{code}").json()["reading"]["labels"] == ["clear"]
    assert colleague.get(f"/v1/cases/{code}").json()["site_labels"] is None  # blinded for whoever has not read it
    assert [entry["read"] for entry in clinician.get(f"/v1/studies/{study.digest}/cases").json()].count(True) == 1
    [kept] = site.caller("auditor").get(f"/v1/studies/{study.digest}/readings").json()
    assert (kept["person"], kept["labels"], kept["confidence"], kept["site_labels"]) == (
        *("clara", ["clear"], 2),
        ["spotted"],
    )
    assert patient.key not in json.dumps(kept)


@pytest.mark.parametrize(
    "body",
    [
        {"labels": ["secret word"], "confidence": 3}, {"labels": [], "confidence": 3},
        {"labels": ["clear", "spotted"], "confidence": 3}, {"labels": ["clear"], "confidence": 6},
        {"labels": ["clear"]}, {"labels": ["clear"], "confidence": 3, "person": "somebody else"},
    ],
)  # fmt: skip
def test_a_reading_of_another_form_is_not_kept_and_not_repeated(site: ReadingSite, body: dict[str, Any]) -> None:
    study = opened(site)
    answer = site.caller("clinician").post(f"/v1/cases/{code_in(site, study)}/reading", json=body)
    assert (answer.status_code, "secret" in answer.text) == (422, False)
    assert site.caller("auditor").get(f"/v1/studies/{study.digest}/readings").json() == []


def test_who_opts_out_is_no_case_any_more_from_that_moment(site: ReadingSite) -> None:
    study = opened(site)
    clinician = site.caller("clinician")
    code, patient = next(iter(open_room(site.settings, study, "anna", NOW).cases.items()))
    assert clinician.get(f"/v1/cases/{code}/image").status_code == 200
    record_opt_outs(site.paths.opt_outs, [patient.key])
    assert code not in codes_of(clinician, study)
    assert [clinician.get(f"/v1/cases/{code}{end}").status_code for end in ("", "/image")] == [404, 404]


def test_a_volume_is_looked_through_slice_by_slice_in_the_order_in_which_it_lies(tmp_path: Path) -> None:
    hospital = make_volume_hospital(tmp_path / "images")
    rows = [{**row, "split": "test" if number > 2 else "train"} for number, row in enumerate(hospital.rows)]
    write_labels(hospital.labels, rows)
    site = ReadingSite.make(tmp_path, hospital.folder)
    study = opened(
        site, study_of(cohort={"modality": ["CT"], "minimum_patients": 2}, preprocessing={"size": [8, 8, 8]})
    )
    room = open_room(site.settings, study, "anna", NOW)
    code = next(code for code, patient in room.cases.items() if patient.label == 1)
    clinician = site.caller("clinician")
    assert clinician.get(f"/v1/cases/{code}").json()["slices"] == [5]
    answers = [clinician.get(f"/v1/cases/{code}/image?slice={number}") for number in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [404]
    middle = [np.asarray(Image.open(BytesIO(answer.content)), float) for answer in answers[:5]]
    contrast = [picture[6:10, 6:10].mean() - picture[:3].mean() for picture in middle]
    assert int(np.argmax(contrast)) == 2  # the ball is in the third of five slices


def test_a_study_on_tables_and_one_without_held_out_patients_have_no_room(site: ReadingSite, images: Path) -> None:
    administrator = site.caller("administrator")
    bare = study_of(cohort={"modality": ["CT"], "minimum_patients": 2})
    answer = administrator.post(f"/v1/studies/{bare.digest}/room", json=told(bare))
    assert (answer.status_code, "No patient" in answer.json()["message"]) == (409, True)


def test_what_reading_keeps_is_closed_to_everybody_but_the_worker_s_user(site: ReadingSite) -> None:
    study = opened(site)
    site.caller("clinician").get(f"/v1/cases/{code_in(site, study)}/image")
    kept = [path for path in (site.paths.worker / "reading").rglob("*") if path.is_file()]
    assert len(kept) >= 4
    assert not [path.name for path in kept if path.stat().st_mode & 0o007]


def test_it_is_refused_an_address_of_everybody(site: ReadingSite) -> None:
    for host in ("0.0.0.0", "8.8.8.8", "10.0.0.5"):  # noqa: S104 - to be refused
        run = CliRunner().invoke(site_app, ["reading-api", str(site.paths.root), "--host", host])
        assert (run.exit_code, "Listening" in run.output) == (1, False)
