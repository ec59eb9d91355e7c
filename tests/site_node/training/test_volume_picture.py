"""Volumes on their way into training: upright, cubic, and one path from the files to a trained round."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.study import StudySpec
from site_node.candidate import read_cohort_figures
from site_node.cohort.cohort import build_cohort
from site_node.cohort.index import index_folder
from site_node.dicom.volume import Volume, read_volume
from site_node.dicom.volume_affine import lps_affine, ras_from_lps
from site_node.settings import SitePaths, SiteSettings
from site_node.training.frozen_cohort import frozen_cohort
from site_node.training.patients import prepare_cohort
from site_node.training.pixel_cache import PixelCache
from site_node.training.transforms import preparation
from site_node.training.volume_picture import cubic, read_volume_picture
from tests.fakes.series import make_volume_hospital
from tests.site_node.training.examples import make_study
from tests.site_node.training.test_job import run, train


def volume(values: np.ndarray[Any, np.dtype[np.float32]], *steps: tuple[float, float, float]) -> Volume:
    affine = lps_affine((0, 0, 0), slice_step=steps[0], row_step=steps[1], column_step=steps[2])
    spacing = tuple(float(np.linalg.norm(step)) for step in steps)
    return Volume(values, ras_from_lps(affine), (spacing[0], spacing[1], spacing[2]), "HU")


def test_thick_slices_become_cubic_voxels_in_proportion_to_millimetres() -> None:
    # 4 slices of 5 mm, 16 rows of 1 mm, 8 columns of 1 mm: 20 x 16 x 8 mm, so 10 x 8 x 4 voxels of 2 mm
    picture = cubic(volume(np.ones((4, 16, 8), np.float32), (0, 0, 5), (0, 1, 0), (1, 0, 0)), 10)
    assert picture.shape == (10, 8, 4)
    np.testing.assert_allclose(picture, 1)


def test_areas_are_averaged() -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    steps = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    np.testing.assert_allclose(cubic(volume(values, *steps), 1), [[[3.5]]])
    np.testing.assert_array_equal(cubic(volume(values, *steps), 2), values)


def test_a_sagittal_and_an_axial_scan_of_one_body_give_one_picture() -> None:
    axial = np.arange(27, dtype=np.float32).reshape(3, 3, 3)  # foot to head, front to back, right to left
    sagittal = axial.transpose(2, 0, 1)[:, ::-1, :]  # right to left, head to foot, front to back
    one = cubic(volume(axial, (0, 0, 1), (0, 1, 0), (1, 0, 0)), 3)
    other = cubic(volume(sagittal, (1, 0, 0), (0, 0, -1), (0, 1, 0)), 3)
    np.testing.assert_array_equal(one, other)


def test_the_files_of_a_series_are_prepared_as_the_study_says(tmp_path: Path) -> None:
    hospital = make_volume_hospital(tmp_path / "images", patients=2)
    paths = sorted((hospital.folder / "V0001").iterdir())
    read = read_volume(paths)
    picture = read_volume_picture(paths, 8)
    assert read.values.shape == (5, 16, 16)
    assert picture.shape == (8, 7, 4)  # 15 mm, 16 * 0.8 mm, 16 * 0.5 mm
    prepared = preparation(make_study(size=(8, 8, 8)).preprocessing)(picture)
    assert prepared.shape == (1, 8, 8, 8)
    assert float(prepared.mean()) == pytest.approx(0, abs=1e-4)
    assert prepared[0, :, :, 0].std() == 0  # padded at the side, where the patient is narrow


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    hospital = make_volume_hospital(tmp_path / "images", patients=36)
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(b"n" * 32)
    index_folder([hospital.folder], paths.index)
    return SiteSettings("a", "http://hub", (hospital.folder,), hospital.labels, "", paths, Path("policy.yaml"), 1)


def volume_study(**training: Any) -> StudySpec:
    arguments = {"channels": [4, 8], "strides": [2, 2], "kernels": [3, 3], "head": 2, "groups": 2}
    return make_study(size=(8, 8, 8), arguments=arguments, **training)


def test_a_round_trains_on_volumes_from_their_files(settings: SiteSettings) -> None:
    study = volume_study()
    run(settings, "cohort", study)
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert (figures.training_patients, figures.problem) == (12, None)
    cohort = frozen_cohort(settings.paths.frozen_cohorts, study.digest)
    assert all(len(image.slices) == 5 for patient in cohort.patients for image in patient.images)
    assert train(settings, study).kind == "update"


def test_prepared_volumes_are_cached_and_the_same_each_time(settings: SiteSettings, tmp_path: Path) -> None:
    study = volume_study()
    cohort = build_cohort(settings.paths.index, settings.labels, study, b"k" * 32)
    first = prepare_cohort(study, cohort, ["train"], PixelCache(tmp_path / "cache", tmp_path / "key"))["train"]
    again = prepare_cohort(study, cohort, ["train"], None)["train"]
    assert first.images.shape == (36, 1, 8, 8, 8)
    np.testing.assert_array_equal(first.images, again.images)
    positive, negative = (first.images[first.rows[first.labels == label]] for label in (1, 0))
    assert positive[:, 0, 3:5, 3:5, 3:5].mean() > negative[:, 0, 3:5, 3:5, 3:5].mean() + 1  # the ball is in the middle
