"""The gate keeps to one lineage: a version's number stands for one set of weights, and 0 is the site's own build."""

from typing import Any

import pytest

from protocol.digest import digest_of_bytes
from protocol.messages import ModelReference, Reason, RoundTask, TaskKind, TaskRefusal, UpdateNotice
from tests.fakes.gated_site import GatedSite, study_of

OTHER = digest_of_bytes(b"other weights")


def based_on(task: RoundTask, **changes: Any) -> RoundTask:
    assert isinstance(task.base, ModelReference)
    return task.model_copy(update={"base": task.base.model_copy(update=changes)})


def verdict_on(site: GatedSite, task: RoundTask) -> Reason | None:
    site.give(task)
    refusals = {m.task_id: m.reason for m in site.sent() if isinstance(m, TaskRefusal)}
    assert task.task_id in refusals or (site.verdict(task.task_id) or {})["verdict"] == "accept"
    return refusals.get(task.task_id)


@pytest.mark.parametrize(("kind", "number"), [(TaskKind.TRAIN, 0), (TaskKind.EVALUATE, 1), (TaskKind.EVALUATE, 3)])
def test_a_task_on_another_version_than_its_round_s_is_refused(site: GatedSite, kind: TaskKind, number: int) -> None:
    study = study_of()
    site.join(study)
    assert verdict_on(site, site.task(study, 2, kind)) is None
    assert verdict_on(site, based_on(site.task(study, 3, kind), number=number + (number == 3))) is Reason.BAD_TASK


@pytest.mark.parametrize("kind", [TaskKind.TRAIN, TaskKind.EVALUATE])
def test_version_0_is_the_one_that_the_site_builds_itself(site: GatedSite, kind: TaskKind) -> None:
    study, round_number = study_of(), int(kind is TaskKind.TRAIN)
    site.join(study)
    forged = based_on(site.task(study, round_number, kind, task_id="forged"), weights_digest=OTHER)
    assert verdict_on(site, forged) is Reason.BAD_TASK
    assert verdict_on(site, site.task(study, round_number, kind)) is None


def test_a_version_that_was_evaluated_is_the_one_that_is_trained_on(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    assert verdict_on(site, site.task(study, 1, TaskKind.EVALUATE)) is None
    assert verdict_on(site, based_on(site.task(study, 2), weights_digest=OTHER)) is Reason.BAD_TASK
    assert verdict_on(site, site.task(study, 2, task_id="honest")) is None


def test_a_study_with_a_mean_of_versions_judges_other_weights_than_it_trains_on(site: GatedSite) -> None:
    study = study_of(strategy={"averaging": 0.5})
    site.join(study)
    assert verdict_on(site, based_on(site.task(study, 1, TaskKind.EVALUATE), weights_digest=OTHER)) is None
    assert verdict_on(site, site.task(study, 2)) is None


def test_what_was_refused_is_not_remembered_and_what_was_accepted_outlives_a_restart(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    refused = based_on(site.task(study, 2, noise_multiplier=0.1, task_id="noiseless"), weights_digest=OTHER)
    assert verdict_on(site, refused) is Reason.BAD_TASK
    assert verdict_on(site, site.task(study, 2)) is None
    site.start()
    assert verdict_on(site, based_on(site.task(study, 1, TaskKind.EVALUATE), weights_digest=OTHER)) is Reason.BAD_TASK


def test_a_round_that_failed_may_lie_between_a_task_and_its_base_if_the_study_has_a_spare_task(site: GatedSite) -> None:
    study = study_of(privacy={"epsilon": 4.0, "delta": 1e-4, "spare_tasks": 1})
    site.join(study)
    assert verdict_on(site, based_on(site.task(study, 2), number=0)) is None  # round 1 failed
    assert verdict_on(site, based_on(site.task(study, 4), number=1)) is Reason.BAD_TASK  # two are more than one
    assert verdict_on(site, site.task(study, 3)) is None
    assert verdict_on(site, based_on(site.task(study, 4, task_id="back"), number=1)) is Reason.BAD_TASK


def test_nobody_goes_back_behind_a_version_that_is_known_here(site: GatedSite) -> None:
    study = study_of(privacy={"epsilon": 4.0, "delta": 1e-4, "spare_tasks": 1})
    site.join(study)
    assert verdict_on(site, site.task(study, 1, TaskKind.EVALUATE)) is None
    assert verdict_on(site, based_on(site.task(study, 2), number=0)) is Reason.BAD_TASK


def test_a_task_that_was_accepted_may_be_done_after_a_newer_version_is_known_here(site: GatedSite) -> None:
    """Buffered rounds and late updates: the hub judges version 1 while this site still trains for round 1."""
    study = study_of()
    site.join(study)
    slow = site.task(study, 1)
    assert verdict_on(site, slow) is None
    assert verdict_on(site, site.task(study, 1, TaskKind.EVALUATE)) is None
    site.hand_over(slow)
    site.sweep()
    assert [m.task_id for m in site.sent() if isinstance(m, UpdateNotice)] == [slow.task_id]
    again = based_on(site.task(study, 1, task_id="again"), number=0)
    assert verdict_on(site, again.model_copy(update={"sequence": 2})) is Reason.BAD_TASK  # another task is not that one


def test_version_0_may_be_the_weights_that_the_study_names(site: GatedSite) -> None:
    study = study_of(start={"weights": OTHER})
    site.join(study)
    assert verdict_on(site, site.task(study, 1)) is Reason.BAD_TASK
    assert verdict_on(site, based_on(site.task(study, 1, task_id="named"), weights_digest=OTHER)) is None


def test_nobody_builds_a_version_0_that_the_study_names(site: GatedSite) -> None:
    study = study_of(start={"weights": OTHER})
    site.join(study)
    assert verdict_on(site, site.task(study, 0, TaskKind.INITIALISE)) is Reason.BAD_TASK
