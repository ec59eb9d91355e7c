"""What is told of a machine follows from the study and the settings alone: no patient is looked at."""

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.readiness import MOST_STAND_INS, expected_patients
from protocol.study import StudySpec, parse_study
from site_node.enrolment import create_site
from site_node.label_settings import LabelSettings
from site_node.machine_figures import MachineFigures, read_machine_figures
from site_node.orders import WorkOrder, readiness_task_id, write_order
from site_node.readiness import job
from site_node.readiness.job import tell_machine
from site_node.readiness.machine import labels_state, machine_figures, names_state, whole_memory
from site_node.readiness.stand_ins import stand_ins
from site_node.settings import SiteSettings
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import SMALLEST, make_study


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    (tmp_path / "images").mkdir()
    return create_site(tmp_path / "site", "st-anna", "http://hub.test", [tmp_path / "images"])


def changed(**parts: Any) -> StudySpec:
    """Return a small study with some parts replaced, or left out (None)."""
    written = {**make_study().model_dump(mode="json", by_alias=True), **parts}
    return parse_study({name: part for name, part in written.items() if part is not None})


SHAPES: dict[str, dict[str, Any]] = {
    "binary": {},
    "multi-class": {"label": {"classes": ["a", "b", "c"]}},
    "multi-label": {"label": {"classes": ["a", "b", "c"], "several": True}},
    "regression": {"kind": "regression", "label": {"column": "age"}, "regression": {"low": 20, "high": 90}},
    "segmentation": {
        "kind": "segmentation",
        "label": {"classes": ["background", "tumour"]},
        "network": {"name": "unet", "arguments": {"channels": [4, 8], "strides": [2], "groups": 2}},
    },
    "survival of a table": {
        "kind": "tabular",
        "label": {"classes": ["alive", "dead"], "column": "event", "time_column": "days"},
        "table": {"features": [{"column": "age"}, {"column": "dose"}]},
        "network": {"name": "mlp", "arguments": {"hidden": [4]}},
        "training": {"local_steps": 2, "sampling_rate": 0.5, "images_per_patient": 1},
        "privacy": {"epsilon": None},
        "preprocessing": None,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_round_of_every_kind_of_study_is_timed_without_an_image_of_the_hospital(
    settings: SiteSettings, shape: str
) -> None:
    study = changed(**SHAPES[shape])
    told = machine_figures(settings, study, 1)
    assert told.minutes_a_round != "not-measured"
    assert told.stand_ins == expected_patients(study) == 50
    assert (told.device, told.decoders, told.disk, told.memory) == ("cpu", "all", "suffices", "suffices")
    assert not settings.paths.index.exists()


def test_the_figures_are_the_same_with_two_patients_and_with_forty(tmp_path: Path) -> None:
    """Timing apart, whose step of the ladder other work on the machine may move."""
    told = []
    for patients in (2, 40):
        folder = tmp_path / str(patients)
        hospital = make_hospital(folder / "images", patients)
        made = create_site(folder / "site", "st-anna", "http://hub.test", [hospital.folder])
        figures = machine_figures(replace(made, labels=hospital.labels), make_study(), 1)
        told.append(figures.model_copy(update={"minutes_a_round": 1}))
    assert told[0] == told[1]
    assert told[0].labels == "found"


def test_stand_ins_are_as_many_as_the_study_expects_and_the_same_everywhere() -> None:
    study = make_study()
    one, other = stand_ins(study, 40), stand_ins(study, 40)
    assert one.patients == len(one.rows) == 40
    assert np.array_equal(np.asarray(one.images), np.asarray(other.images))
    assert len(one.images) == 16  # of which each stands there several times


def test_expected_patients_are_a_fair_share_of_the_federation_and_at_least_the_study_s_minimum() -> None:
    terms: dict[str, Any] = {
        "participants": {"training_patients": 100, "minimum_sites": 3},
        "privacy": {"epsilon": None},
    }
    assert expected_patients(changed(**terms)) == 34
    assert expected_patients(changed(**terms, cohort={"minimum_patients": 60})) == 60
    terms["participants"]["training_patients"] = 10**9
    assert expected_patients(changed(**terms)) == MOST_STAND_INS


def test_labels_are_found_by_the_first_line_of_the_table_alone(settings: SiteSettings) -> None:
    study = make_study()
    column = study.label.column
    assert labels_state(settings, study) == "missing"
    settings.labels.write_text("patient_id,sop_instance_uid,other\n")
    assert labels_state(settings, study) == "no-column"
    settings.labels.write_text(f"patient_id;{column}\n\x00 no table below")
    assert labels_state(settings, study) == "found"
    in_reports = replace(settings, labelling=LabelSettings(reports={column: "DCM:121071"}))
    assert labels_state(in_reports, study) == "in-reports"
    masks = changed(**SHAPES["segmentation"])
    settings.labels.write_text("patient_id\n")
    assert labels_state(settings, masks) == "found"


def test_a_study_of_a_table_needs_every_column_of_it(settings: SiteSettings, tmp_path: Path) -> None:
    study, table = changed(**SHAPES["survival of a table"]), tmp_path / "table.csv"
    assert labels_state(settings, study) == "missing"
    table.write_text("patient_id,age,dose,event\n")
    assert labels_state(replace(settings, table=table), study) == "no-column"
    table.write_text("patient_id,age,dose,event,days\n")
    assert labels_state(replace(settings, table=table), study) == "found"


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ({}, "none"),
        ({"neg": "No", "weiss nicht": ""}, "some"),
        ({"neg": "no", "pos": " YES "}, "every"),
        ({"pos": "maybe"}, "none"),
    ],
)
def test_class_names_are_looked_for_among_what_the_site_s_words_mean(names: dict[str, str], state: str) -> None:
    assert names_state(LabelSettings(names=names), make_study()) == state


def test_a_mask_s_background_needs_no_name_and_numbers_need_none_at_all() -> None:
    named = LabelSettings(names={"GTV-1": "tumour"})
    assert names_state(named, changed(**SHAPES["segmentation"])) == "every"
    assert names_state(named, changed(**SHAPES["regression"])) == "not-needed"
    assert names_state(named, changed(**SHAPES["multi-label"])) == "not-needed"


def test_memory_is_judged_by_what_the_machine_has_not_by_what_is_left() -> None:
    assert whole_memory("MemTotal: 8 kB\nMemAvailable: 1 kB\n", None) == 8192
    assert whole_memory(None, None) is None


def ordered(settings: SiteSettings, study: StudySpec, number: int) -> str:
    order = WorkOrder(
        kind="readiness",
        task_id=readiness_task_id(study.digest, number),
        task_digest=study.digest,
        study=study.model_dump(mode="json", by_alias=True),
        study_digest=study.digest,
        recount=number,
    )
    write_order(settings.paths, order)
    return order.task_id


def test_looking_that_takes_too_long_is_ended_and_says_that_nothing_was_seen(
    settings: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(*_: object) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(job, "machine_figures", endless)
    monkeypatch.setattr(job, "LONGEST_SECONDS", 0.05)
    before, study = signal.getsignal(signal.SIGALRM), make_study()
    tell_machine(settings, ordered(settings, study, 1))
    assert read_machine_figures(settings.paths, study.digest) == MachineFigures(study_digest=study.digest, number=1)
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_job_hands_figures_over_and_says_that_nothing_was_seen_where_looking_fails(settings: SiteSettings) -> None:
    for number, network in ((1, "convnet"), (2, "unheard-of")):
        study = make_study().model_copy(
            update={
                "network": make_study().network.model_copy(update={"name": network, "arguments": SMALLEST["convnet"]})
            }
        )
        tell_machine(settings, ordered(settings, study, number))
        figures = read_machine_figures(settings.paths, study.digest)
        assert figures is not None
        assert figures.number == number
        assert (figures.device == "unseen", figures.minutes_a_round == "not-measured") == ((number == 2,) * 2)
