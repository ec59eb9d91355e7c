"""The noised number of training patients at the worker: drawn once, kept with the cohort, and dividing each step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.digest import digest_of
from protocol.noised_counts import LONGEST_DRAW
from protocol.study import StudySpec, parse_study
from protocol.tensors import Weights
from site_node.candidate import CohortFigures, read_cohort_figures
from site_node.cohort.cohort import Cohort, ImageRef, Patient
from site_node.cohort.index import index_folder
from site_node.cohort_members import SpentPatients, read_members, write_spent
from site_node.orders import WorkOrder, write_order
from site_node.privacy.noise import NoiseSource
from site_node.settings import SitePaths, SiteSettings
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort
from site_node.training.job import run_order
from site_node.training.networks import initial_weights
from site_node.training.patients import prepare_cohort
from site_node.training.trainer import train
from site_node.training.transforms import Picture
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_noise, make_patients, make_study

KEY = b"n" * 32
DIGEST = "sha256:" + "c" * 64


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    hospital = make_hospital(
        tmp_path / "images", patients=24, size=16, split=lambda number: "train" if number % 3 else "test"
    )
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(KEY)
    index_folder([hospital.folder], paths.index)
    return SiteSettings("a", "http://hub", (hospital.folder,), hospital.labels, "", paths, Path("policy.yaml"), 1)


def study_named(name: str, count_epsilon: float | None = 0.3, **cohort: Any) -> StudySpec:
    document = make_study().model_dump(mode="json", by_alias=True)
    document |= {"name": name, "privacy": document["privacy"] | {"count_epsilon": count_epsilon}}
    document["cohort"] |= cohort
    return parse_study(document)


def counted(settings: SiteSettings, study: StudySpec, recount: int = 0, **fields: Any) -> CohortFigures:
    """Order a study's cohort as the gate does, whose order names the study as its task."""
    order = WorkOrder(
        kind="cohort",
        task_id=f"cohort-{study.name}-{recount}",
        task_digest=study.digest,
        study=study.model_dump(mode="json", by_alias=True),
        study_digest=study.digest,
        recount=recount,
        **fields,
    )
    write_order(settings.paths, order)
    run_order(settings, order.task_id)
    figures = read_cohort_figures(settings.paths, study.digest)
    assert figures is not None
    assert figures.problem is None
    return figures


def frozen(settings: SiteSettings, study: StudySpec) -> Cohort:
    return frozen_cohort(settings.paths.frozen_cohorts, study.digest)


def test_the_told_number_is_the_exact_one_with_the_study_s_own_noise(settings: SiteSettings) -> None:
    study = study_named("noised")
    figures, cohort = counted(settings, study), frozen(settings, study)
    exact = len(cohort.of("train"))
    keyed = digest_of({"cohort": cohort.manifest_digest, "counts": [exact]})
    noise = int(NoiseSource(KEY, study.digest, keyed).counts.two_sided_geometric(1, 1 / 0.3)[0])
    assert (figures.training_patients, figures.count_epsilon) == (max(10, exact + noise), 0.3)
    assert cohort.told == figures.training_patients
    assert abs(noise) <= LONGEST_DRAW / 0.3


def test_counted_again_the_number_is_the_same_so_that_nothing_averages_out(settings: SiteSettings) -> None:
    study = study_named("noised")
    told = {counted(settings, study, recount).training_patients for recount in range(4)}
    assert len(told) == 1


def test_another_study_of_the_same_patients_has_noise_of_its_own(settings: SiteSettings) -> None:
    """Else two equal numbers would tell that two groups are the same, to the patient."""
    told = [counted(settings, study_named(f"study-{n}", minimum_patients=1)).training_patients for n in range(8)]
    assert len(set(told)) > 1


def test_quality_figures_beside_it_lie_within_the_told_number(settings: SiteSettings) -> None:
    for number in range(6):
        document = study_named(f"study-{number}", minimum_patients=1).model_dump(mode="json", by_alias=True)
        study = parse_study(document | {"site_rates": {"adapt": "quality", "quality_epsilon": 0.5}})
        figures = counted(settings, study)
        assert figures.quality is not None
        assert figures.quality.fits(study.site_rates, figures.training_patients)


def test_who_is_left_out_is_not_counted(settings: SiteSettings) -> None:
    study = study_named("noised", count_epsilon=4.0, minimum_patients=1)
    first = counted(settings, study)
    members = read_members(settings.paths, study.digest, first.members_digest)
    spent = SpentPatients(training=frozenset(members.training[:6]))
    digest = write_spent(settings.paths, "cohort-noised-1", spent)
    again = counted(settings, study, recount=1, spent_digest=digest)
    train_now = len(frozen(settings, study).of("train"))
    assert train_now == len(members.training) - 6
    assert abs(again.training_patients - train_now) <= LONGEST_DRAW / 4.0
    keyed = digest_of({"cohort": frozen(settings, study).manifest_digest, "counts": [train_now]})
    noise = int(NoiseSource(KEY, study.digest, keyed).counts.two_sided_geometric(1, 0.25)[0])
    assert again.training_patients == train_now + noise


def test_nobody_who_trains_is_told_as_none(settings: SiteSettings) -> None:
    study = study_named("noised", minimum_patients=1000)
    assert counted(settings, study).training_patients == 0


def test_a_study_that_takes_exact_numbers_is_told_the_exact_one(settings: SiteSettings) -> None:
    study = study_named("exact", count_epsilon=None)
    figures, cohort = counted(settings, study), frozen(settings, study)
    assert (figures.training_patients, figures.count_epsilon) == (len(cohort.of("train")), None)
    assert cohort.told is None


def patient(key: str, split: str) -> Patient:
    image = ImageRef(Path("none.dcm"), f"1.{key}", 1)
    return Patient(key, (image,), 1, "train" if split == "train" else "test")


def test_a_frozen_cohort_keeps_the_told_number_for_its_training_patients_alone(tmp_path: Path) -> None:
    def read(_: ImageRef) -> Picture:
        return np.zeros((16, 16), np.float32)

    cohort = Cohort((patient("1", "train"), patient("2", "test")), DIGEST, {}, {"train": 5}, told=9)
    freeze_cohort(tmp_path, DIGEST, cohort)
    kept = frozen_cohort(tmp_path, DIGEST)
    assert (kept.told, kept.training_figure) == (9, 9)
    prepared = prepare_cohort(make_study(), kept, ["train", "test"], None, read=read)
    assert (prepared["train"].patients, prepared["train"].public_figure) == (1, 9)
    assert prepared["test"].public_figure == 1


STUDY = make_study(sampling_rate=0.5, local_steps=1, learning_rate=1.0)


def moved(exact: int, told: int | None) -> Weights:
    patients = replace(make_patients([1] * exact), told=told)
    start = initial_weights(STUDY)
    trained = train(STUDY, start, patients, make_noise(), noise_multiplier=1.0, round_number=1)
    return {name: trained[name] - start[name] for name in start}


def test_a_step_is_divided_by_the_told_number_and_by_no_other() -> None:
    """Eight train; told are 8, then 16: the same noised sum over 0.5 x 16 instead of 0.5 x 8."""
    exact, told, twice = moved(8, None), moved(8, 8), moved(8, 16)
    for name in exact:
        assert told[name] == pytest.approx(exact[name])
        assert twice[name] == pytest.approx(exact[name] / 2, rel=1e-3, abs=1e-6)
