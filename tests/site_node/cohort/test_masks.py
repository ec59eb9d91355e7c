"""Cohorts of segmentation and regression studies: which images have a mask or a number, and what names the result."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from protocol.study import StudySpec, parse_study
from site_node.cohort.cohort import Cohort, build_cohort
from site_node.cohort.index import index_folder
from site_node.cohort.index_database import open_index
from site_node.cohort.masks import NO_IMAGE_NAMED, NO_MASK, SEVERAL_MASKS, UNUSABLE
from site_node.cohort.value_labels import NO_NUMBER, OUT_OF_RANGE
from site_node.errors import LabelsError, MaskError, TooFewPatientsError
from site_node.label_settings import LabelSettings
from site_node.labels.image_file import OTHER_SIZE, UNREADABLE
from site_node.labels.masks import MISSING
from site_node.labels.voxel_values import NAME_IT, UNKNOWN_VALUE
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort
from site_node.training.patients import prepare_cohort
from site_node.training.pixel_cache import PixelCache
from site_node.training.prepared_masks import prepared_masks
from tests.fakes.dicom import write_labels
from tests.fakes.drawn_hospital import make_drawn_hospital, make_drawn_volumes, make_measured_hospital

KEY = b"k" * 32
DIGEST = "sha256:" + "5" * 64
NO_NAMES: Mapping[str, str] = MappingProxyType({})


def study_of(kind: str = "segmentation", **parts: Any) -> StudySpec:
    labels = {"label": {"classes": ["background", "box"]}} if kind == "segmentation" else {}
    measured = {"label": {"column": "months"}, "regression": {"low": 0, "high": 200}} if kind == "regression" else {}
    return parse_study(
        {
            "name": "drawn",
            "kind": kind,
            "cohort": {"minimum_patients": 1},
            "preprocessing": {"size": [16, 16], "augmentation": "none"},
            "network": {"name": "unet" if kind == "segmentation" else "convnet"},
            "rounds": 1,
            "privacy": {"epsilon": None},
            **labels,
            **measured,
            **parts,
        }
    )


def cohort_of(labels: Path, study: StudySpec, names: Mapping[str, str] = NO_NAMES) -> Cohort:
    index = labels.with_suffix(".sqlite")
    index_folder([labels.parent / "images"], index)
    return build_cohort(index, labels, study, KEY, labelling=LabelSettings(dict(names)))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return make_drawn_hospital(tmp_path / "site", 6)


def test_every_image_has_its_mask_and_nobody_a_class(labels: Path) -> None:
    cohort = cohort_of(labels, study_of())
    assert [len(patient.images) for patient in cohort.patients] == [2] * 6
    assert {patient.label for patient in cohort.patients} == {0}  # no class: and yet the site trains
    assert cohort.of("train")
    assert all(image.mask and image.mask_digest for patient in cohort.patients for image in patient.images)
    assert cohort.mask_names["box"] == 1


def test_a_mask_is_part_of_the_manifest(labels: Path) -> None:
    before = cohort_of(labels, study_of()).manifest_digest
    file = labels.parent / "masks" / "0-0.png"
    changed = np.asarray(Image.open(file)).copy()
    changed[0, 0] = 255 - changed[0, 0]
    Image.fromarray(changed).save(file)
    assert cohort_of(labels, study_of()).manifest_digest != before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda rows, _: rows.pop(), NO_MASK),
        (lambda rows, _: rows.append({**rows[0], "file": "masks/1-0.png"}), SEVERAL_MASKS),
        (lambda rows, _: rows.append({"sop_instance_uid": "", "file": "masks/1-0.png"}), NO_IMAGE_NAMED),
        (lambda _, site: Image.new("L", (8, 8)).save(site / "masks" / "2-1.png"), UNUSABLE + OTHER_SIZE),
        (lambda _, site: (site / "masks" / "2-1.png").unlink(), UNUSABLE + MISSING),
        (lambda _, site: (site / "masks" / "2-1.png").write_bytes(b"no picture"), UNUSABLE + UNREADABLE),
    ],
    ids=["none", "two", "nobody's", "size", "gone", "garbage"],
)
def test_an_image_without_a_usable_mask_falls_out_with_its_reason(labels: Path, damage: Any, reason: str) -> None:
    rows = rows_of(labels.parent / "masks.csv")
    damage(rows, labels.parent)
    write_labels(labels.parent / "masks.csv", rows)
    cohort = cohort_of(labels, study_of())
    assert cohort.dropped == {reason: 1}


def revalued(labels: Path, values: Mapping[str, int]) -> None:
    """Write what is drawn in these files with another value."""
    for name, value in values.items():
        file = labels.parent / "masks" / f"{name}.png"
        Image.fromarray(np.asarray(Image.open(file)) // 255 * np.uint8(value)).save(file)


def test_the_only_other_value_of_all_masks_means_the_only_class_and_is_frozen_so(tmp_path: Path, labels: Path) -> None:
    cohort = cohort_of(labels, study_of())
    assert (cohort.dropped, cohort.mask_names["255"]) == ({}, 1)
    freeze_cohort(tmp_path / "frozen", DIGEST, cohort)
    assert prepared_masks(study_of(), frozen_cohort(tmp_path / "frozen", DIGEST)).any()


def test_several_values_of_one_file_each_mean_nothing(labels: Path) -> None:
    """Masks of several classes, drawn slice by slice: no file knows of the others' values."""
    revalued(labels, {"0-0": 2, "0-1": 4, "1-0": 0})  # and no cohort of empty masks is left
    with pytest.raises(TooFewPatientsError, match=UNKNOWN_VALUE) as caught:
        cohort_of(labels, study_of())
    assert caught.value.remedy.startswith(NAME_IT)
    named = cohort_of(labels, study_of(), {"255": "box"})
    assert named.dropped == {UNUSABLE + UNKNOWN_VALUE: 2}
    assert named.remedies == {UNUSABLE + UNKNOWN_VALUE: NAME_IT}


def test_another_value_beside_the_classs_own_number_means_nothing(labels: Path) -> None:
    everything = {f"{patient}-{image}": 1 for patient in range(6) for image in range(2)}
    revalued(labels, everything | {"0-0": 7, "3-1": 7})
    assert cohort_of(labels, study_of()).dropped == {UNUSABLE + UNKNOWN_VALUE: 2}


def test_a_value_named_as_something_else_is_never_trained_as_the_class(labels: Path) -> None:
    with pytest.raises(TooFewPatientsError, match=UNKNOWN_VALUE):
        cohort_of(labels, study_of(), {"255": "oedema"})


def test_a_list_of_masks_that_names_no_image_is_refused(labels: Path) -> None:
    write_labels(labels.parent / "masks.csv", [{"name": "1", "file": "masks/0-0.png"}])
    with pytest.raises(LabelsError, match="lacks a column that names images"):
        cohort_of(labels, study_of())


def test_a_frozen_cohort_keeps_its_masks_and_notices_another_one(tmp_path: Path, labels: Path) -> None:
    study, cohort = study_of(), cohort_of(labels, study_of())
    freeze_cohort(tmp_path / "frozen", DIGEST, cohort)
    frozen = frozen_cohort(tmp_path / "frozen", DIGEST)
    assert (frozen.patients, frozen.mask_names) == (cohort.patients, cohort.mask_names)
    masks = prepared_masks(study, frozen)
    drawn = [
        np.asarray(Image.open(image.mask.path)) // 255 for p in frozen.patients for image in p.images if image.mask
    ]
    assert (masks == np.array(drawn)).all()  # as large as the study's pictures: nothing is resized
    Image.new("L", (16, 16)).save(labels.parent / "masks" / "0-0.png")
    with pytest.raises(MaskError, match="another than when"):
        prepared_masks(study, frozen)


@pytest.mark.parametrize("tilt_degrees", [0.0, 12.0])
def test_a_volumes_mask_lies_on_the_volume(tmp_path: Path, tilt_degrees: float) -> None:
    labels = make_drawn_volumes(tmp_path / "site", 4, tilt_degrees=tilt_degrees)
    study = study_of(preprocessing={"size": [16, 16, 16], "augmentation": "none"})
    cohort = cohort_of(labels, study)
    assert cohort.dropped == {}
    cache = PixelCache(tmp_path / "cache", tmp_path / "cache.key")
    prepared, again = (prepare_cohort(study, cohort, ["train"], kept)["train"] for kept in (None, cache))
    everybody = np.arange(len(prepared.rows))
    assert (prepared.targets_of(everybody) == again.targets_of(everybody)).all()
    for number in everybody:
        image = prepared.pixels_of(everybody)[number, 0].numpy()
        mask = prepared.targets_of(everybody)[number] == 1
        found = image > (image[mask].mean() + np.median(image)) / 2  # the box is bright
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.8


def test_a_series_mask_serves_a_study_of_its_single_pictures(tmp_path: Path) -> None:
    labels = make_drawn_volumes(tmp_path / "site", 3)
    index_folder([labels.parent / "images"], tmp_path / "index.sqlite")
    with open_index(tmp_path / "index.sqlite") as database:
        headers = [image.header for image in database.pictures()]
    rows = [{"patient_id": str(one.patient_id), "sop_instance_uid": one.sop_instance_uid} for one in headers]
    cohort = cohort_of(write_labels(labels, rows), study_of())
    assert (cohort.dropped, sum(len(patient.images) for patient in cohort.patients)) == ({}, len(headers))
    assert prepared_masks(study_of(), cohort).any()


def test_numbers_are_read_and_those_outside_the_range_fall_out(tmp_path: Path) -> None:
    labels = make_measured_hospital(tmp_path / "site", 6)
    rows = rows_of(labels)
    rows[0]["months"], rows[1]["months"] = "240", "old"
    write_labels(labels, rows)
    cohort = cohort_of(labels, study_of("regression"))
    assert cohort.dropped == {OUT_OF_RANGE: 1, NO_NUMBER: 1}
    values = {patient.key: patient.images[0].value for patient in cohort.patients}
    assert values == {row["patient_id"]: float(row["months"]) for row in rows[2:]}
    targets = prepare_cohort(study_of("regression"), cohort, ["train"], None)["train"].targets
    assert targets.max() <= 1
    assert targets == pytest.approx([(values[patient.key] or 0) / 200 for patient in cohort.of("train")])


def test_a_number_is_part_of_the_manifest(tmp_path: Path) -> None:
    labels = make_measured_hospital(tmp_path / "site", 4)
    before = cohort_of(labels, study_of("regression")).manifest_digest
    rows = rows_of(labels)
    rows[0]["months"] = "1.5"
    write_labels(labels, rows)
    assert cohort_of(labels, study_of("regression")).manifest_digest != before
