"""Segmentations and structure sets of the index: found by what they name, gone with their files."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from protocol.study import StudySpec, parse_study
from site_node.cohort.cohort import Cohort, build_cohort
from site_node.cohort.index import index_folder
from site_node.cohort.index_database import open_index
from site_node.cohort.indexed_masks import masks_of_index
from site_node.cohort.masks import UNUSABLE, MaskList, mask_values
from site_node.errors import LabelsError, MaskError
from site_node.label_settings import LabelSettings
from site_node.labels.masks import MaskRef
from site_node.labels.seg_set import DRAWN_TWICE
from site_node.labels.structures import NONE_NAMED
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort
from tests.fakes.annotations import NEOPLASM, coded, report, segmentation, structure_set
from tests.fakes.dicom import save, uid_of
from tests.fakes.drawn_hospital import make_drawn_volumes
from tests.fakes.segmented_hospital import slices_of
from tests.fakes.series import body, positions_of, saved, series_of

PNEUMONIA = ("233604007", "SCT", "Pneumonia")
SEGMENTATION = parse_study(
    {
        "name": "drawn",
        "kind": "segmentation",
        "cohort": {"minimum_patients": 1},
        "label": {"classes": ["background", "box"]},
        "preprocessing": {"size": [16, 16, 16], "augmentation": "none"},
        "network": {"name": "unet"},
        "rounds": 1,
        "privacy": {"epsilon": None},
    }
)


def cohort_of(labels: Path, study: StudySpec, settings: LabelSettings | None = None) -> Cohort:
    index = labels.with_suffix(".sqlite")
    index_folder([labels.parent / "images"], index)
    return build_cohort(index, labels, study, bytes(32), labelling=settings or LabelSettings())


def made(folder: Path) -> list[Dataset]:
    slices = series_of(body(), positions_of(4))
    saved(slices, folder / "images")
    save(segmentation(slices, np.ones((4, 6, 5), np.uint8)), folder / "seg.dcm")
    return slices


def masks(folder: Path, index: Path) -> MaskList:
    index_folder([folder], index)
    with open_index(index) as database:
        return masks_of_index(database.annotations())


def test_a_segmentation_is_the_mask_of_its_series_and_images_and_no_picture(tmp_path: Path) -> None:
    slices = made(tmp_path / "site")
    found = masks(tmp_path / "site", tmp_path / "index.sqlite")
    series, path = str(slices[0].SeriesInstanceUID), (tmp_path / "site" / "seg.dcm").resolve()
    assert found.files[series] == MaskRef(path, "seg", series_instance_uid=series)
    first = str(slices[0].SOPInstanceUID)
    assert found.files[first] == MaskRef(path, "seg", sop_instance_uid=first)
    assert found.contradicting == frozenset()
    with open_index(tmp_path / "index.sqlite") as database:
        assert len(list(database.pictures())) == 4
        assert len(list(database.images())) == 5


def test_what_labels_images_leaves_the_index_with_its_file(tmp_path: Path) -> None:
    site, index = tmp_path / "site", tmp_path / "index.sqlite"
    slices = made(site)
    assert len(masks(site, index).files) == 5
    save(slices[0], site / "seg.dcm")
    assert masks(site, index).files == {}
    save(report(slices, [coded(PNEUMONIA)]), site / "seg.dcm")
    assert masks(site, index).files == {}
    with open_index(index) as database:
        assert [one.header.kind for one in database.annotations()] == ["sr"]
    (site / "seg.dcm").unlink()
    assert masks(site, index).files == {}
    with open_index(index) as database:
        assert list(database.annotations()) == []


def test_a_copy_counts_once_and_of_two_masks_none_is_chosen_but_by_masks_csv(tmp_path: Path) -> None:
    site, index = tmp_path / "site", tmp_path / "index.sqlite"
    slices = made(site)
    (site / "copy.dcm").write_bytes((site / "seg.dcm").read_bytes())
    assert masks(site, index).contradicting == frozenset()
    save(structure_set(slices, {"organ": []}), site / "structures.dcm")
    found, series = masks(site, index), str(slices[0].SeriesInstanceUID)
    assert series in found.contradicting
    chosen = MaskList({series: MaskRef(site / "seg.dcm", "seg", series)}, frozenset())
    assert series not in found.under(chosen).contradicting
    assert found.under(chosen).files[series].path == site / "seg.dcm"


def test_a_study_of_volumes_takes_its_masks_from_the_index_without_a_masks_csv(tmp_path: Path) -> None:
    labels = make_drawn_volumes(tmp_path / "site", 4)
    by_file = cohort_of(labels, SEGMENTATION)
    (labels.parent / "masks.csv").unlink()
    for patient in range(4):
        folder = labels.parent / "images" / f"P{patient:04d}"
        slices = sorted(
            (pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2]
        )
        drawn = np.asarray(nibabel.load(labels.parent / f"P{patient:04d}.nii.gz").dataobj).transpose(2, 1, 0)
        if patient == 3:
            save(structure_set(slices, {"couch": []}), folder / "structures.dcm")
        else:
            save(segmentation(slices, drawn.astype(np.uint8), segments=[("GTV 1", NEOPLASM)]), folder / "seg.dcm")
    known = LabelSettings({"gtv 1": "Box"})
    cohort = cohort_of(labels, SEGMENTATION, known)
    assert cohort.dropped == {UNUSABLE + NONE_NAMED: 1}
    assert [image.mask_digest for patient in cohort.patients for image in patient.images] == [
        image.mask_digest for patient in by_file.patients[:3] for image in patient.images
    ]
    kinds = {image.mask.kind for patient in cohort.patients for image in patient.images if image.mask}
    assert kinds == {"seg"}


def test_neither_masks_csv_nor_a_mask_in_the_index_is_said_with_its_remedy(tmp_path: Path) -> None:
    labels = make_drawn_volumes(tmp_path / "site", 2)
    (labels.parent / "masks.csv").unlink()
    with pytest.raises(LabelsError, match=r"masks\.csv"):
        cohort_of(labels, SEGMENTATION)


def organs(slices: list[Dataset], folder: Path, **drawn: tuple[str, np.ndarray[Any, Any]]) -> None:
    """Save a segmentation of its own for each name, with one segment of this label."""
    for name, (label, marks) in drawn.items():
        made = segmentation(slices, marks, segments=[(label, NEOPLASM)])
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid_of(name)
        save(made, folder / f"{name}.dcm")


def two_organs(folder: Path, *, second: str = "spleen", apart: bool = True) -> tuple[Path, np.ndarray[Any, Any]]:
    """Write a patient with a segmentation for each organ, and one with one; return labels.csv and the first's mask."""
    labels = make_drawn_volumes(folder, 2)
    (folder / "masks.csv").unlink()
    whole = np.ones((10, 14, 18), np.uint8)
    organs(slices_of(folder / "images" / "P0001"), folder / "images" / "P0001", alone=("box", whole))
    slices = slices_of(folder / "images" / "P0000")
    box, other = np.zeros((10, 14, 18), np.uint8), np.zeros((10, 14, 18), np.uint8)
    box[2:6, 2:8, 2:8] = 1
    other[4:8, 6:12, 6:12] = 1
    organs(slices, folder / "images", a=("box", box), b=(second, other if apart else box), z=("couch", other))
    return labels, np.maximum(box, 2 * other)


def test_a_segmentation_for_each_organ_makes_one_mask_whatever_their_order(tmp_path: Path) -> None:
    study = parse_study(
        {**SEGMENTATION.model_dump(mode="json", by_alias=True), "label": {"classes": ["background", "box", "spleen"]}}
    )
    labels, both = two_organs(tmp_path / "site")
    cohort = cohort_of(labels, study)
    assert not cohort.dropped
    (image,), (other,) = [patient.images for patient in cohort.patients]
    assert other.mask is not None
    assert other.mask.beside == ()
    assert image.mask is not None
    assert [path.name for path in image.mask.beside] == ["b.dcm", "z.dcm"]
    values = mask_values(image.mask, image.path, image.frame, image.slices, cohort.mask_names)
    np.testing.assert_array_equal(values, both)
    turned = MaskRef(image.mask.beside[1], "seg", beside=(image.mask.beside[0], image.mask.path))
    np.testing.assert_array_equal(mask_values(turned, image.path, None, image.slices, cohort.mask_names), both)
    freeze_cohort(tmp_path, study.digest, cohort)
    assert frozen_cohort(tmp_path, study.digest).patients == cohort.patients


def test_the_same_class_drawn_twice_is_refused_where_the_two_differ(tmp_path: Path) -> None:
    labels, _ = two_organs(tmp_path / "differ", second="Box")
    cohort = cohort_of(labels, SEGMENTATION)
    assert cohort.dropped == {UNUSABLE + DRAWN_TWICE: 1}
    (remedy,) = cohort.remedies.values()
    assert "masks.csv" in remedy
    labels, _ = two_organs(tmp_path / "same", second="Box", apart=False)
    assert not cohort_of(labels, SEGMENTATION).dropped


def test_segmentations_that_hold_no_class_of_the_study_are_no_mask(tmp_path: Path) -> None:
    labels, _ = two_organs(tmp_path / "site")
    (tmp_path / "site" / "images" / "a.dcm").unlink()
    assert cohort_of(labels, SEGMENTATION).dropped == {UNUSABLE + NONE_NAMED: 1}


def test_one_of_several_segmentations_that_is_damaged_or_gone_is_said(tmp_path: Path) -> None:
    labels, _ = two_organs(tmp_path / "site")
    ((image,), _) = [patient.images for patient in cohort_of(labels, SEGMENTATION).patients]
    assert image.mask is not None
    second = image.mask.beside[0]
    second.write_bytes(second.read_bytes()[:400])
    with pytest.raises(MaskError, match="cannot be read"):
        mask_values(image.mask, image.path, None, image.slices, {"background": 0, "box": 1})
    second.unlink()
    with pytest.raises(MaskError, match="missing"):
        mask_values(image.mask, image.path, None, image.slices, {"background": 0, "box": 1})
