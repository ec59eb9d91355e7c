"""Of two workers that count one study, the one whose figures the gate is told has frozen the cohort."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.digest import hex_of
from site_node.candidate import read_cohort_figures
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.orders import WorkOrder, cohort_task_id, write_order
from site_node.settings import SitePaths, SiteSettings
from site_node.tasks import run_order
from site_node.tasks.lease import EXPIRY_SECONDS
from site_node.tasks.run_order import Worker, work_on
from site_node.training import job
from site_node.training.frozen_cohort import frozen_cohort
from tests.fakes.dicom import make_hospital
from tests.site_node.cohort.tables import SURVIVAL_HEADER, many_rows, survival_study, write_table
from tests.site_node.training.examples import make_study

STUDY = make_study(images_per_patient=2)


def site(tmp_path: Path) -> SiteSettings:
    hospital = make_hospital(tmp_path / "images", patients=24, size=16, split=lambda _: "train")
    settings = create_site(tmp_path / "site", "st-anna", "http://hub.test", [hospital.folder], threads=1)
    index_folder([hospital.folder], settings.paths.index)
    return replace(settings, labels=hospital.labels)


def ordered(settings: SiteSettings, study: Any = STUDY) -> str:
    task_id = cohort_task_id(study.digest)
    document = study.model_dump(mode="json", by_alias=True)
    write_order(
        settings.paths,
        WorkOrder(kind="cohort", task_id=task_id, task_digest=study.digest, study=document, study_digest=study.digest),
    )
    return task_id


def in_place_of_a_child(worker: Worker, _leases: Any, _lease: Any, order: WorkOrder, staging: Path) -> int:
    """Do the job as its child does: with the staging folder among the site's paths."""
    settings = worker.settings
    job.run_order(replace(settings, paths=SitePaths(settings.paths.root, staging)), order.task_id)
    return 0


def test_a_worker_that_was_overtaken_does_not_overwrite_the_cohort_that_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = site(tmp_path)
    task_id, overtaken = ordered(settings), []

    def paused(worker: Worker, leases: Any, lease: Any, order: WorkOrder, staging: Path) -> int:
        """Fall asleep before counting; somebody else takes over and counts; and more patients come after that."""
        if lease.token == 1:
            all_rows = settings.labels.read_text(encoding="utf-8")
            settings.labels.write_text("\n".join(all_rows.splitlines()[:41]), encoding="utf-8")
            later = Worker(settings, clock=lambda: 1000.0 + EXPIRY_SECONDS)
            overtaken.append(work_on(later, task_id))
            settings.labels.write_text(all_rows, encoding="utf-8")
        return in_place_of_a_child(worker, leases, lease, order, staging)

    monkeypatch.setattr(run_order, "_watch", paused)
    assert work_on(Worker(settings, clock=lambda: 1000.0), task_id) == "lease lost"
    assert overtaken == ["done"]
    figures = read_cohort_figures(settings.paths, STUDY.digest)
    assert figures is not None
    frozen = frozen_cohort(settings.paths.frozen_cohorts, STUDY.digest)
    assert (figures.training_patients, len(frozen.of("train"))) == (20, 20)
    assert figures.manifest_digest == frozen.manifest_digest


def test_rows_of_a_table_are_put_in_place_with_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_order, "_watch", in_place_of_a_child)
    study = survival_study()
    settings = replace(site(tmp_path), table=write_table(tmp_path / "t.csv", many_rows(60), SURVIVAL_HEADER))
    assert work_on(Worker(settings), ordered(settings, study)) == "done"
    assert sorted(path.name for path in settings.paths.frozen_cohorts.iterdir()) == [
        f"{hex_of(study.digest)}.json",
        f"{hex_of(study.digest)}.npy",
    ]
    assert settings.paths.frozen_cohorts.stat().st_mode & 0o077 == 0
    assert frozen_cohort(settings.paths.frozen_cohorts, study.digest).values is not None
    assert list((settings.paths.worker / "staging").iterdir()) == []
