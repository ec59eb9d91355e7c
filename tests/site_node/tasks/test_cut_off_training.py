"""A worker's training that is killed, or whose GPU is lost, goes on in another process to the same bytes."""

import json
from pathlib import Path

import pytest

from protocol.digest import digest_of_bytes, hex_of
from protocol.messages import Reason
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec, parse_study
from protocol.tensors import encode_weights
from site_node.candidate import payload_path, read_candidate
from site_node.checkpoint_folders import checkpoint_folder
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.orders import WorkOrder, write_order
from site_node.settings import SiteSettings, load_settings
from site_node.tasks.lease import REST_SECONDS
from site_node.tasks.run_order import MAX_CRASHES, Worker, work_on
from site_node.training.job import run_order
from site_node.training.networks import initial_weights
from site_node.training.task_device import RECORD
from tests.fakes.cut_off_jobs import plan, steps_taken
from tests.fakes.dicom import make_hospital
from tests.site_node.training.examples import make_study

STEPS = 5
JOB = "tests.fakes.cut_off_jobs:run_with_trouble"
AFTER_EACH_STEP = "checkpoint_minutes: 1e-9\n"


def study_of(**changes: object) -> StudySpec:
    study = make_study(local_steps=STEPS, learning_rate=0.5, images_per_patient=2, augmentation="light", momentum=0.5)
    return parse_study({**study.model_dump(mode="json", by_alias=True), **changes})


class Hospital:
    """A site with a counted cohort and a clock that does not wait."""

    def __init__(self, folder: Path, study: StudySpec, settings: str = AFTER_EACH_STEP) -> None:
        images = make_hospital(folder / "images", patients=24, size=16, split=lambda _: "train")
        made = create_site(folder / "site", "st-anna", "http://hub.test", [images.folder], threads=1)
        with made.paths.configuration.open("a") as file:
            file.write(settings)
        index_folder([images.folder], made.paths.index)
        made.paths.noise_key.write_bytes(b"n" * 32)
        self.settings: SiteSettings = load_settings(made.paths.root)
        self.study = study
        self.now = 1000.0
        run_order(self.settings, self.order("cohort").task_id)

    def order(self, kind: str = "train") -> WorkOrder:
        version = encode_weights(initial_weights(self.study))
        digest = digest_of_bytes(version)
        (self.settings.paths.blobs / hex_of(digest)).write_bytes(version)
        training = {"round": 1, "base_blob": digest, "noise_multiplier": noise_multiplier_of(self.study)}
        made = WorkOrder.model_validate(
            {
                "kind": kind,
                "task_id": f"{kind}-1",
                "task_digest": digest_of_bytes(kind.encode()),
                "study": self.study.model_dump(mode="json", by_alias=True),
                "study_digest": self.study.digest,
                **(training if kind == "train" else {}),
            }
        )
        write_order(self.settings.paths, made)
        return made

    def work(self, order: WorkOrder) -> str:
        """Let a worker try, rested."""
        self.now += REST_SECONDS[1]
        return work_on(Worker(self.settings, JOB, lambda: self.now), order.task_id)

    def update(self, order: WorkOrder) -> bytes:
        candidate = read_candidate(self.settings.paths, order.task_id)
        assert candidate is not None
        assert candidate.kind == "update", candidate.reason
        return payload_path(self.settings.paths, order.task_id).read_bytes()

    def progress(self, order: WorkOrder) -> float:
        found = json.loads((self.settings.paths.progress / f"{order.task_id}.json").read_bytes())
        return float(found["fraction"])


def undisturbed(folder: Path, study: StudySpec, settings: str) -> bytes:
    one = Hospital(folder, study, settings)
    order = one.order()
    assert one.work(order) == "done"
    return one.update(order)


@pytest.mark.parametrize(
    ("changes", "settings", "steps", "passes"),
    [
        ({}, "", 4, 1),
        ({"personal": {"ditto": 0.5}}, "processes: 2\n", STEPS + 3, 2),
    ],
    ids=["in one process", "a personal model in two processes"],
)
def test_a_training_that_is_killed_at_a_step_goes_on_to_the_same_bytes(
    tmp_path: Path, changes: dict[str, object], settings: str, steps: int, passes: int
) -> None:
    study = study_of(**changes)
    expected = undisturbed(tmp_path / "one", study, settings)
    other = Hospital(tmp_path / "other", study, AFTER_EACH_STEP + settings)
    order = other.order()
    plan(other.settings, "killed", steps)
    assert other.work(order) == "crashed"
    folder = checkpoint_folder(other.settings.paths, order)
    assert {path.name for path in folder.iterdir()} >= {"round.sealed"}
    plan(other.settings, "killed", 2)
    assert other.work(order) == "crashed"  # after one further step: the one at which it is killed is not kept
    assert 0 < other.progress(order) <= 1
    plan(other.settings, "none", 0)
    assert other.work(order) == "done"
    assert steps_taken(other.settings) == passes * STEPS - steps
    assert other.update(order) == expected
    assert not folder.exists()


def test_a_gpu_that_is_lost_leaves_the_task_to_another_process_and_to_the_cpu_where_the_site_says_so(
    tmp_path: Path,
) -> None:
    study = study_of()
    expected = undisturbed(tmp_path / "one", study, "")
    other = Hospital(tmp_path / "other", study, AFTER_EACH_STEP + "cpu_if_gpu_is_lost: true\n")
    order = other.order()
    plan(other.settings, "lost", 3)
    assert other.work(order) == "crashed"
    assert (checkpoint_folder(other.settings.paths, order) / RECORD).exists()
    assert other.work(order) == "done"
    assert other.update(order) == expected


def test_without_leave_a_task_that_was_begun_on_a_gpu_is_not_trained_on_a_cpu(tmp_path: Path) -> None:
    other = Hospital(tmp_path, study_of())
    order = other.order()
    plan(other.settings, "lost", 3)
    assert [other.work(order) for _ in range(MAX_CRASHES + 1)] == ["crashed"] * MAX_CRASHES + ["done"]
    candidate = read_candidate(other.settings.paths, order.task_id)
    assert candidate is not None
    assert (candidate.kind, candidate.reason) == ("failure", Reason.DEVICE_LOST)
    assert not checkpoint_folder(other.settings.paths, order).exists()
