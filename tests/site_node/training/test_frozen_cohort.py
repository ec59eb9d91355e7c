import os
from dataclasses import replace
from pathlib import Path

import pytest

from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.errors import CohortError
from site_node.training.frozen_cohort import frozen_cohort

STUDY = "sha256:" + "a" * 64
IMAGE = ImageRef(Path("one.dcm"), "1.2.3", 1, None, 61.0, "F", "PA", "sha256:" + "b" * 64)
COHORT = Cohort((Patient("p", (IMAGE,), 1, "train"),), "sha256:" + "c" * 64, {"label: no image": 2})


def test_a_cohort_is_built_once_and_comes_back_the_same(tmp_path: Path) -> None:
    built: list[int] = []

    def build() -> Cohort:
        built.append(1)
        return COHORT

    assert frozen_cohort(tmp_path / "cohorts", STUDY, build) == COHORT
    assert frozen_cohort(tmp_path / "cohorts", STUDY, build) == COHORT
    assert built == [1]


def test_each_study_has_its_own(tmp_path: Path) -> None:
    other = Cohort((), "sha256:" + "d" * 64)
    frozen_cohort(tmp_path, STUDY, lambda: COHORT)
    assert frozen_cohort(tmp_path, "sha256:" + "e" * 64, lambda: other) == other


def test_only_the_worker_may_read_it(tmp_path: Path) -> None:
    frozen_cohort(tmp_path / "cohorts", STUDY, lambda: COHORT)
    (file,) = (tmp_path / "cohorts").iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{}", '{"patients": [{"key": 1}], "manifest_digest": "", "dropped": {}}'])
def test_a_damaged_file_is_refused_with_a_remedy(tmp_path: Path, content: str) -> None:
    frozen_cohort(tmp_path, STUDY, lambda: COHORT)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    with pytest.raises(CohortError, match=r"damaged.*new study"):
        frozen_cohort(tmp_path, STUDY, lambda: COHORT)


def test_a_file_name_that_is_not_utf_8_comes_back_as_it_was(tmp_path: Path) -> None:
    image = replace(IMAGE, path=Path(os.fsdecode(b"/data/bad\xff\xfename.dcm")))
    cohort = replace(COHORT, patients=(replace(COHORT.patients[0], images=(image,)),))
    assert frozen_cohort(tmp_path, STUDY, lambda: cohort) == cohort
    assert frozen_cohort(tmp_path, STUDY, lambda: COHORT) == cohort
