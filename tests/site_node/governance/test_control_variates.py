"""The gate on SCAFFOLD's control variate: which it takes from the hub, and that the worker is told."""

from pathlib import Path
from typing import Any

import pytest

from protocol.digest import digest_of_bytes
from protocol.messages import ModelReference, Reason, RoundTask, TaskKind, TaskRefusal
from protocol.study import StudySpec
from tests.fakes.gated_site import PERMISSIVE_POLICY, GatedSite, study_of

CONTROL = digest_of_bytes(b"control")


@pytest.fixture
def site(tmp_path: Path) -> GatedSite:
    return GatedSite.make(tmp_path, PERMISSIVE_POLICY)


def joined(site: GatedSite, **changes: Any) -> StudySpec:
    study = study_of(**{"strategy": {"name": "scaffold"}, **changes})
    site.join(study)
    return study


def with_control(task: RoundTask, **changes: Any) -> RoundTask:
    assert task.base is not None
    control = ModelReference(**{**task.base.model_dump(), "weights_digest": CONTROL, **changes})
    return task.model_copy(update={"control": control})


def refusal_of(site: GatedSite, task: RoundTask) -> Reason | None:
    site.give(task)
    return {m.task_id: m.reason for m in site.sent() if isinstance(m, TaskRefusal)}.get(task.task_id)


def test_the_worker_is_told_which_control_variate_to_take(site: GatedSite) -> None:
    study = joined(site)
    task = with_control(site.task(study))
    assert refusal_of(site, task) is None
    assert f'"control_blob":"{CONTROL}"' in (site.paths.orders / f"{task.task_id}.json").read_text()


def test_a_first_round_without_one_is_taken(site: GatedSite) -> None:
    study = joined(site)
    task = site.task(study)
    assert refusal_of(site, task) is None
    assert '"control_blob":null' in (site.paths.orders / f"{task.task_id}.json").read_text()


@pytest.mark.parametrize(
    "changes",
    [{"number": 3}, {"weights_bytes": 1 << 40}, {"manifest_digest": digest_of_bytes(b"other")}],
    ids=["of another version", "larger than the version", "of another form"],
)
def test_one_that_is_not_of_the_base_version_s_form_is_refused(site: GatedSite, changes: dict[str, Any]) -> None:
    study = joined(site)
    assert refusal_of(site, with_control(site.task(study), **changes)) is Reason.BAD_TASK


def test_a_study_of_another_strategy_takes_none(site: GatedSite) -> None:
    study = joined(site, strategy={"name": "fedavg"})
    assert refusal_of(site, with_control(site.task(study))) is Reason.BAD_TASK


def test_an_evaluation_takes_none(site: GatedSite) -> None:
    study = joined(site)
    assert refusal_of(site, with_control(site.task(study, 1, TaskKind.EVALUATE))) is Reason.BAD_TASK
