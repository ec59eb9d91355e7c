import os
from dataclasses import replace
from pathlib import Path

import pytest

from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.errors import CohortError
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort

STUDY = "sha256:" + "a" * 64
IMAGE = ImageRef(Path("one.dcm"), "1.2.3", 1, None, 61.0, "F", "PA", "sha256:" + "b" * 64)
COHORT = Cohort((Patient("p", (IMAGE,), 1, "train"),), "sha256:" + "c" * 64, {"label: no image": 2}, {"train": 3})


def test_a_cohort_comes_back_as_it_was_frozen(tmp_path: Path) -> None:
    freeze_cohort(tmp_path / "cohorts", STUDY, COHORT)
    assert frozen_cohort(tmp_path / "cohorts", STUDY) == COHORT


def test_a_volume_keeps_its_slices_in_order(tmp_path: Path) -> None:
    slices = (Path("b.dcm"), Path(os.fsdecode(b"bad\xff.dcm")), Path("a.dcm"))
    cohort = replace(COHORT, patients=(Patient("p", (replace(IMAGE, slices=slices),), 1, "train"),))
    freeze_cohort(tmp_path, STUDY, cohort)
    assert frozen_cohort(tmp_path, STUDY).patients[0].images[0].slices == slices


def test_each_study_has_its_own(tmp_path: Path) -> None:
    other = Cohort((), "sha256:" + "d" * 64)
    freeze_cohort(tmp_path, STUDY, COHORT)
    freeze_cohort(tmp_path, "sha256:" + "e" * 64, other)
    assert frozen_cohort(tmp_path, "sha256:" + "e" * 64) == other


def test_a_cohort_that_was_never_counted_is_not_made_up(tmp_path: Path) -> None:
    """Training on patients whom the ledger was not charged for is worse than not training."""
    with pytest.raises(CohortError, match=r"missing.*new study"):
        frozen_cohort(tmp_path, STUDY)


def test_only_the_worker_may_read_it(tmp_path: Path) -> None:
    freeze_cohort(tmp_path / "cohorts", STUDY, COHORT)
    (file,) = (tmp_path / "cohorts").iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{}", '{"patients": [{"key": 1}], "manifest_digest": "", "dropped": {}}'])
def test_a_damaged_file_is_refused_with_a_remedy(tmp_path: Path, content: str) -> None:
    freeze_cohort(tmp_path, STUDY, COHORT)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    with pytest.raises(CohortError, match=r"damaged.*new study"):
        frozen_cohort(tmp_path, STUDY)


def test_a_file_name_that_is_not_utf_8_comes_back_as_it_was(tmp_path: Path) -> None:
    image = replace(IMAGE, path=Path(os.fsdecode(b"/data/bad\xff\xfename.dcm")))
    cohort = replace(COHORT, patients=(replace(COHORT.patients[0], images=(image,)),))
    freeze_cohort(tmp_path, STUDY, cohort)
    assert frozen_cohort(tmp_path, STUDY) == cohort
