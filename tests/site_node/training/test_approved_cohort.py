"""A study's task uses the cohort that was approved and charged, by its content, or nobody."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.messages import Reason
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec
from site_node.cohort.cohort import manifest_digest_of
from site_node.cohort.index import index_folder
from site_node.opt_outs import record_opt_outs
from site_node.settings import SitePaths, SiteSettings
from site_node.site_secrets import split_key
from site_node.training.frozen_cohort import freeze_cohort, frozen_cohort
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_study
from tests.site_node.training.test_job import base_blob, run, split, train

NOISE_KEY = b"n" * 32


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    hospital = make_hospital(tmp_path / "images", patients=24, size=16, split=split)
    paths = SitePaths(tmp_path / "site")
    for folder in paths.folders():
        folder.mkdir(parents=True, exist_ok=True)
    paths.noise_key.write_bytes(NOISE_KEY)
    index_folder([hospital.folder], paths.index)
    return SiteSettings("a", "http://hub", (hospital.folder,), hospital.labels, "", paths, Path("policy.yaml"), 1)


def with_a_stranger(settings: SiteSettings, study: StudySpec, *, hidden: bool) -> str:
    """Write one more patient into a frozen cohort, with another digest or the old one; return what was approved."""
    [file] = settings.paths.frozen_cohorts.glob("*.json")
    cohort = frozen_cohort(settings.paths.frozen_cohorts, study.digest)
    stranger = replace(cohort.of("train")[0], key="stranger")
    patients = (*cohort.patients, stranger)
    digest = cohort.manifest_digest if hidden else manifest_digest_of(patients, split_key(NOISE_KEY))
    freeze_cohort(file.parent, study.digest, replace(cohort, patients=patients, manifest_digest=digest))
    return cohort.manifest_digest


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize(("hidden", "is_named"), [(True, True), (True, False), (False, True)])
def test_nothing_is_done_with_another_cohort_than_the_one_that_was_charged(
    settings: SiteSettings, kind: str, hidden: bool, is_named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(images_per_patient=2)
    run(settings, "cohort", study)
    approved = with_a_stranger(settings, study, hidden=hidden)
    more = {"noise_multiplier": noise_multiplier_of(study)} if kind == "train" else {}
    named = approved if is_named else None
    done = run(settings, kind, study, round=1, base_blob=base_blob(settings, study), cohort_digest=named, **more)
    assert (done.kind, done.reason) == ("failure", Reason.INTERNAL)
    said = capsys.readouterr().out
    assert "not the one that was approved and charged. Stop the study at the hub" in said
    assert "stranger" not in said


def test_a_running_study_goes_on_with_its_approved_cohort_after_an_opt_out(settings: SiteSettings) -> None:
    study = make_study(images_per_patient=2)
    run(settings, "cohort", study)
    frozen = frozen_cohort(settings.paths.frozen_cohorts, study.digest)
    record_opt_outs(settings.paths.opt_outs, [frozen.of("train")[0].key], now=1.0)
    assert train(settings, study, cohort_digest=frozen.manifest_digest).kind == "update"
    receipt = json.loads((settings.paths.worker_receipts / "task-train.json").read_text())
    assert receipt["patients"] == 15
