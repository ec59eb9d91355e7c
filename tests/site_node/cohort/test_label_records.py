"""Labels by patient, imaging study, series or instance, and out of structured reports: one record for each image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from protocol.study import StudySpec
from site_node.cohort.cohort import Cohort, build_cohort
from site_node.cohort.identities import MergeRow, identities_of
from site_node.cohort.index import index_folder
from site_node.cohort.label_records import (
    NOBODYS,
    REPLACED_REPORT,
    SILENT_REPORT,
    STRAY_REPORT,
    UNREADABLE_REPORT,
)
from site_node.cohort.labels import CONTRADICTION, FOREIGN_VALUE, NO_INSTANCE, NO_VALUE
from site_node.cohort.matching import ORPHAN, OTHER_PATIENT
from site_node.errors import LabelsError
from site_node.label_settings import LabelSettings
from tests.fakes.annotations import coded, container, number, report, text
from tests.fakes.dicom import make_dataset, save, uid_of, write_labels
from tests.site_node.cohort.studies import study_of

KEY = bytes(32)
STUDY = study_of(splits={"validation": 0, "test": 0}, cohort={"single_class": "train"})
SITES_WORDS = LabelSettings({"SCT:233604007": "Pneumonia", "clear": "normal", "not seen": ""})
REPORTS = LabelSettings(SITES_WORDS.names, {"label": "DCM:121071"})
PNEUMONIA, NORMAL = ("233604007", "SCT", "Lungs inflamed"), ("17621005", "SCT", "normal")


class Site:
    """Two patients: P1 with two imaging studies of two images each, each in a series of its own, and P2 with one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = [self._image("P1", study, image) for study in "ab" for image in "12"]
        self.images.append(self._image("P2", "a", "1"))

    def _image(self, patient: str, study: str, image: str) -> Dataset:
        pixels = np.full((8, 8), ord(study) + ord(image), np.uint8)
        dataset = make_dataset(pixels, patient, f"{study}{image}", StudyInstanceUID=uid_of(f"{patient}/{study}"))
        dataset.SeriesInstanceUID = uid_of(f"{patient}/{study}/{image}")
        save(dataset, self.folder / "images" / patient / f"{study}{image}.dcm")
        return dataset

    def keep(self, *reports: Dataset) -> None:
        for count, one in enumerate(reports):
            save(one, self.folder / "images" / f"report{count}.dcm")

    def cohort(
        self,
        rows: Sequence[dict[str, str]] = (),
        settings: LabelSettings = SITES_WORDS,
        study: StudySpec = STUDY,
        **more: Any,
    ) -> Cohort:
        labels = self.folder / "labels.csv"
        if rows:
            write_labels(labels, list(rows))
        index_folder([self.folder / "images"], self.folder / "index.sqlite")
        return build_cohort(self.folder / "index.sqlite", labels, study, KEY, labelling=settings, **more)


def said(cohort: Cohort) -> dict[str, list[int | None]]:
    return {patient.key: [image.label for image in patient.images] for patient in cohort.patients}


@pytest.mark.parametrize(
    ("column", "name", "expected"),
    [
        ("sop_instance_uid", lambda one: str(one.SOPInstanceUID), {"P1": [1]}),
        ("series_instance_uid", lambda one: str(one.SeriesInstanceUID), {"P1": [1]}),
        ("study_instance_uid", lambda one: str(one.StudyInstanceUID), {"P1": [1, 1]}),
        ("patient_id", lambda one: str(one.PatientID), {"P1": [1, 1, 1, 1]}),
    ],
)
def test_a_row_labels_every_image_that_its_finest_column_names(
    tmp_path: Path, column: str, name: Any, expected: dict[str, list[int]]
) -> None:
    site = Site(tmp_path)
    row = {"patient_id": "P1", column: name(site.images[0]), "label": "pneumonia"}
    cohort = site.cohort([row])
    assert said(cohort) == expected
    assert cohort.dropped.get("image: it has no row in labels.csv") == 5 - len(expected["P1"])


def test_without_a_column_of_patients_the_header_says_whose_an_image_is(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = [
        {"series_instance_uid": str(one.SeriesInstanceUID), "label": str(n % 2)} for n, one in enumerate(site.images)
    ]
    labels = said(site.cohort(rows))
    assert (sorted(labels["P1"], key=str), labels["P2"]) == ([0, 0, 1, 1], [0])
    rows = [{"sop_instance_uid": str(one.SOPInstanceUID), "label": "1"} for one in site.images]
    assert said(site.cohort(rows)) == {"P1": [1, 1, 1, 1], "P2": [1]}


def test_a_patients_row_finds_the_images_of_all_ids_of_that_patient(tmp_path: Path) -> None:
    site = Site(tmp_path)
    one = identities_of([MergeRow("P2", "P1")])
    assert said(site.cohort([{"patient_id": "P2", "label": "1"}], identities=one)) == {"P1": [1, 1, 1, 1, 1]}


def test_rows_without_an_image_are_counted_and_name_nobody(tmp_path: Path) -> None:
    site = Site(tmp_path)
    here = str(site.images[0].StudyInstanceUID)
    rows = [{"study_instance_uid": one, "label": "1"} for one in (here, "2.25.1", "2.25.2", "")]
    dropped = site.cohort(rows).dropped
    assert (dropped[NOBODYS], dropped[NO_INSTANCE]) == (2, 1)
    rows = [{"patient_id": one, "label": "1"} for one in ("P1", "P7", "")]
    dropped = site.cohort(rows).dropped
    assert (dropped[ORPHAN], dropped[NO_INSTANCE]) == (1, 1)


def test_rows_of_one_patient_that_contradict_each_other_drop_the_images(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = [{"patient_id": "P1", "label": "1"}, {"patient_id": "P1", "label": "0"}, {"patient_id": "P2", "label": "1"}]
    cohort = site.cohort(rows)
    assert (said(cohort), cohort.dropped[CONTRADICTION]) == ({"P2": [1]}, 4)


def test_a_row_that_names_another_patient_than_the_header_is_not_believed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = [{"patient_id": "P2", "series_instance_uid": str(site.images[0].SeriesInstanceUID), "label": "1"}]
    rows.append({"patient_id": "P2", "series_instance_uid": str(site.images[4].SeriesInstanceUID), "label": "1"})
    cohort = site.cohort(rows)
    assert (said(cohort), cohort.dropped[OTHER_PATIENT]) == ({"P2": [1]}, 1)


def test_the_sites_own_words_are_read_as_the_studys(tmp_path: Path) -> None:
    site = Site(tmp_path)
    words = ["sct:233604007", " CLEAR", "normal", "Not  Seen", "tumour"]
    rows = [
        {"patient_id": str(one.PatientID), "sop_instance_uid": str(one.SOPInstanceUID), "label": word}
        for one, word in zip(site.images, words, strict=True)
    ]
    cohort = site.cohort(rows, LabelSettings({**SITES_WORDS.names, "tumour": "another study's class"}))
    assert sorted(said(cohort)["P1"], key=str) == [0, 0, 1]
    assert (cohort.dropped[NO_VALUE], cohort.dropped[FOREIGN_VALUE]) == (1, 1)


def test_a_number_named_as_something_else_is_not_a_classs_number(tmp_path: Path) -> None:
    site = Site(tmp_path)
    rows = [
        {"patient_id": str(one.PatientID), "sop_instance_uid": str(one.SOPInstanceUID), "label": word}
        for one, word in zip(site.images, ["1", "0", "normal", "0", "0"], strict=True)
    ]
    for meant in ("oedema", "0"):
        cohort = site.cohort(rows, LabelSettings({"1": meant, "normal": "healthy"}))
        assert said(cohort) == {"P1": [0, 0, 0], "P2": [0]}
        assert cohort.dropped[FOREIGN_VALUE] == 1


def test_a_file_that_names_no_images_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="'patient_id', 'sop_instance_uid'"):
        Site(tmp_path).cohort([{"name": "Secret^Person", "label": "1"}])


def test_a_reports_coded_value_labels_the_images_of_its_evidence(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.keep(report(site.images[:2], [container([coded(PNEUMONIA)])]), report(site.images[4:], [coded(NORMAL)]))
    assert said(site.cohort(settings=REPORTS)) == {"P1": [1, 1], "P2": [0]}


@pytest.mark.parametrize("value", [text("Pneumonia"), number("1"), coded(("x", "99OWN", "PNEUMONIA"))])
def test_a_value_may_be_text_a_number_or_a_codes_meaning(tmp_path: Path, value: Dataset) -> None:
    site = Site(tmp_path)
    site.keep(report(site.images[4:], [text("normal", ("121106", "DCM", "Comment")), value]))
    assert said(site.cohort(settings=REPORTS)) == {"P2": [1]}


def test_a_report_without_evidence_labels_its_imaging_study(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.keep(report(site.images[:1], [coded(PNEUMONIA)], evidence=False))
    assert said(site.cohort(settings=REPORTS)) == {"P1": [1, 1]}


def test_a_concept_is_found_by_its_meaning_too(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.keep(report(site.images[4:], [coded(PNEUMONIA)]))
    assert said(site.cohort(settings=LabelSettings(SITES_WORDS.names, {"label": "finding"}))) == {"P2": [1]}


def test_a_report_that_was_replaced_or_is_not_complete_or_silent_or_stray_does_not_count(tmp_path: Path) -> None:
    site = Site(tmp_path)
    images = site.images[4:]
    first = report(images, [coded(NORMAL)], name="first")
    elsewhere = make_dataset(np.zeros((8, 8), np.uint8), "P9")
    site.keep(
        first,
        report(images, [coded(PNEUMONIA)], name="second", replaces=[first]),
        report(images, [coded(NORMAL)], name="draft", completion="PARTIAL"),
        report(images, [text("nothing", ("121106", "DCM", "Comment"))], name="silent"),
        report([elsewhere], [coded(NORMAL)], name="stray"),
    )
    cohort = site.cohort(settings=REPORTS)
    assert said(cohort) == {"P2": [1]}
    reasons = (REPLACED_REPORT, UNREADABLE_REPORT, SILENT_REPORT, STRAY_REPORT)
    assert [cohort.dropped[reason] for reason in reasons] == [1, 1, 1, 1]


def test_reports_that_contradict_each_other_or_themselves_drop_the_images(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.keep(
        report(site.images[:1], [coded(NORMAL), coded(PNEUMONIA)], name="both"),
        report(site.images[2:3], [coded(NORMAL)], name="one"),
        report(site.images[2:3], [coded(PNEUMONIA)], name="other"),
        report(site.images[4:], [coded(PNEUMONIA), coded(PNEUMONIA)], name="twice the same"),
    )
    cohort = site.cohort(settings=REPORTS)
    assert (said(cohort), cohort.dropped[CONTRADICTION]) == ({"P2": [1]}, 2)


def test_a_report_of_another_patient_is_not_believed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    foreign = report(site.images[:1], [coded(PNEUMONIA)], name="foreign")
    foreign.PatientID = "P2"
    site.keep(foreign, report(site.images[4:], [coded(PNEUMONIA)]))
    cohort = site.cohort(settings=REPORTS)
    assert (said(cohort), cohort.dropped[OTHER_PATIENT]) == ({"P2": [1]}, 1)
