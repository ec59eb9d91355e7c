"""`wardround site cohort`: counts by criteria, why the others fell out, and who may be one patient."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.annotations import coded, report
from tests.fakes.dicom import make_dataset, save, write_labels
from tests.fakes.site_command import run

PIXELS = np.zeros((8, 8), dtype=np.uint8)
NAME = "Jansen"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a site with 30 patients of two scanners and two years, one image each, ten of them without a body part."""
    rows = []
    for number in range(30):
        dataset = make_dataset(
            PIXELS,
            f"{NAME}{number}",
            BodyPartExamined=None if number < 10 else "THORAX",
            Manufacturer="SIEMENS Healthineers" if number % 2 else "GE MEDICAL SYSTEMS",
            StudyDate="20200131" if number < 15 else "20240601",
            SeriesDescription=f"CHEST_pa/{number}",
            ProtocolName="Thorax pa",
        )
        save(dataset, tmp_path / "images" / f"{number}.dcm")
        if number < 25:
            rows.append({"patient_id": f"{NAME}{number}", "sop_instance_uid": str(dataset.SOPInstanceUID), "label": ""})
    write_labels(tmp_path / "images" / "labels.csv", rows)
    (tmp_path / "images" / "broken.dcm").write_bytes(b"no image")
    folder = tmp_path / "site"
    words = ("--name", "st-anna", "--hub", "http://127.0.0.1:9", "--images", tmp_path / "images")
    assert run("init", folder, *words)[0] == 0
    assert run("index", folder)[0] == 0
    return folder


def found(site: Path, *words: object) -> dict[str, Any]:
    status, output = run("cohort", site, *words, "--json")
    assert status == 0, output
    assert NAME not in output
    report: dict[str, Any] = json.loads(output)
    return report


def test_without_criteria_everything_is_counted(site: Path) -> None:
    report = found(site)
    assert report["found"]["patients"] == report["found"]["images"] == 30
    assert report["unusable"] == {"not a DICOM file": None}
    assert report["fallen_out"] == []


@pytest.mark.parametrize(
    ("words", "patients"),
    [
        (("--body-part", "chest"), 20),
        (("--manufacturer", "Siemens"), 10),
        (("--manufacturer", "ge", "--manufacturer", "siemens"), 30),
        (("--date-from", "2020-02-01"), 10),
        (("--date-until", "2020-01-31"), 10),
        (("--series-description", "pa chest"), 30),
        (("--protocol", "lateral"), None),
        (("--labelled",), 20),
        (("--body-part", "CHEST", "--manufacturer", "GE", "--date-until", "2020-12-31"), None),
    ],
)
def test_criteria_count_whom_they_meet_and_hide_few(site: Path, words: tuple[str, ...], patients: int | None) -> None:
    figures = found(site, *words)["found"]
    assert figures["patients"] == figures["images"] == patients


def test_it_says_why_the_others_fell_out(site: Path) -> None:
    status, output = run("cohort", site, "--body-part", "CHEST", "--date-from", "2024-01-01")
    assert (status, NAME in output) == (0, False)
    assert "The criteria meet, in tens: 10 patients" in output
    assert "10 or more images: its body part is not known, and the study asks for it" in output
    assert "fewer than 10 images: its date is outside the study's" in output
    assert "unusable: fewer than 10 files: not a DICOM file" in output


def test_a_study_s_own_criteria_count(site: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: tiny\nrounds: 1\ncohort: {manufacturer: [GE]}\nlabel: {classes: [none, some]}\n"
        "network: {name: densenet}\nprivacy: {epsilon: null}\n"
    )
    assert found(site, study)["found"]["patients"] == 10
    status, output = run("cohort", site, study, "--modality", "CT")
    assert (status, "not both" in output) == (1, True)


def test_what_is_no_criterion_is_refused(site: Path) -> None:
    assert "a date is written 2020-01-31" in run("cohort", site, "--date-from", "31.1.2020")[1]
    assert "sex" in run("cohort", site, "--sex", "X")[1]


def test_images_of_one_imaging_study_under_several_ids_are_reported_and_listed_for_this_site_alone(
    site: Path, tmp_path: Path
) -> None:
    for number in range(12):
        one = make_dataset(PIXELS, f"{NAME}{number}", "9", StudyInstanceUID=f"1.2.{number + 1}", Manufacturer="GE")
        other = make_dataset(PIXELS, f"K-{number}", "9", StudyInstanceUID=f"1.2.{number + 1}", Manufacturer="GE")
        save(one, tmp_path / "images" / f"{number}-one.dcm")
        save(other, tmp_path / "images" / f"{number}-other.dcm")
    assert run("index", site)[0] == 0
    listed = tmp_path / "doubtful.csv"
    status, output = run("cohort", site, "--doubtful", listed)
    assert (status, NAME in output, "several ids: 24" in output) == (0, False, True)
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    assert len(listed.read_text().splitlines()) == 13
    assert found(site)["found"]["patients"] == 40
    with (site / "site.yaml").open("a", encoding="utf-8") as file:
        file.write(f"merged_patients: {listed}\n")
    merged = found(site)
    assert merged["found"]["patients"] == 30
    assert (merged["doubtful_patients"], merged["several_ids"]) == (0, 12)
    assert "there already" in run("cohort", site, "--doubtful", listed)[1]


LEVELS = ("sop_instance_uid", "series_instance_uid", "study_instance_uid", "patient_id")


@pytest.mark.parametrize("with_patient", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_labels_of_every_form_count_the_images_that_they_stand_for(
    site: Path, tmp_path: Path, level: str, with_patient: bool
) -> None:
    rows = []
    for number in range(24):
        dataset = make_dataset(PIXELS, f"{NAME}{number}")
        named = {
            "sop_instance_uid": str(dataset.SOPInstanceUID),
            "series_instance_uid": str(dataset.SeriesInstanceUID),
            "study_instance_uid": str(dataset.StudyInstanceUID),
            "patient_id": str(dataset.PatientID),
        }
        row = {level: named[level], "label": ""}
        rows.append(row | {"patient_id": named["patient_id"]} if with_patient else row)
    write_labels(tmp_path / "images" / "labels.csv", rows)
    told = found(site, "--labelled")
    assert told["found"]["patients"] == told["found"]["images"] == 20  # of 30, in tens
    (why,) = told["fallen_out"]
    assert why.startswith("fewer than 10 images: it has no row in labels.csv")


def test_labels_by_patient_follow_who_is_one_patient(site: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.csv"
    merged.write_text("old_id,new_id,kind\n" + "".join(f"old-{n},{NAME}{n},joined\n" for n in range(12)))
    with (site / "site.yaml").open("a", encoding="utf-8") as file:
        file.write(f"merged_patients: {merged}\n")
    write_labels(tmp_path / "images" / "labels.csv", [{"patient_id": f"old-{n}", "label": "1"} for n in range(12)])
    assert found(site, "--labelled")["found"]["patients"] == 10


def test_a_study_whose_label_stands_in_reports_is_labelled_by_these(site: Path, tmp_path: Path) -> None:
    for number in range(12):
        image = make_dataset(PIXELS, f"{NAME}{number}")
        save(report([image], [coded(("1", "99OWN", "seen"))], name=str(number)), tmp_path / f"images/sr{number}.dcm")
    assert run("index", site)[0] == 0
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: tiny\nrounds: 1\nlabel: {classes: [none, some], column: finding}\n"
        "network: {name: densenet}\nprivacy: {epsilon: null}\n"
    )
    assert found(site, study, "--labelled")["found"]["patients"] == 20  # those of labels.csv
    with (site / "site.yaml").open("a", encoding="utf-8") as file:
        file.write("reports: {finding: 'DCM:121071'}\n")
    assert found(site, study, "--labelled")["found"]["patients"] == 10
    assert found(site, "--labelled")["found"]["patients"] == 20


def test_labels_that_name_nothing_are_refused(site: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "labels.csv").write_text(f"name,label\n{NAME},1\n")
    status, output = run("cohort", site, "--labelled")
    assert (status, "'patient_id', 'sop_instance_uid'" in output) == (1, True)
    assert NAME not in output
