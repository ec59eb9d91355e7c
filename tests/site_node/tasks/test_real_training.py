"""Two workers of one hospital train rounds of two studies, and each round's update is what one process makes of it."""

import json
import re
import shutil
from pathlib import Path

from protocol.digest import digest_of_bytes, hex_of
from protocol.privacy_accounting import noise_multiplier_of
from protocol.study import StudySpec
from protocol.tensors import encode_weights
from site_node.candidate import payload_path, read_candidate
from site_node.cohort.index import index_folder
from site_node.enrolment import create_site
from site_node.orders import WorkOrder, write_order
from site_node.settings import SiteSettings, load_settings
from site_node.tasks.app import enqueue, make_app
from site_node.training.job import run_order
from site_node.training.networks import initial_weights
from tests.fakes.dicom import make_hospital
from tests.fakes.running_workers import running_redis, running_worker
from tests.fakes.waiting import until
from tests.site_node.training.examples import make_study

STUDIES = {"heart": make_study(), "lung": make_study(images_per_patient=2)}
ROUNDS = (1, 2)


def order(settings: SiteSettings, study: StudySpec, kind: str, task_id: str, **fields: object) -> WorkOrder:
    made = WorkOrder.model_validate(
        {
            "kind": kind,
            "task_id": task_id,
            "task_digest": digest_of_bytes(task_id.encode()),
            "study": study.model_dump(mode="json", by_alias=True),
            "study_digest": study.digest,
            **fields,
        }
    )
    write_order(settings.paths, made)
    return made


def order_all(settings: SiteSettings) -> list[WorkOrder]:
    """Count both studies' cohorts, as before an approval, and order two rounds of training of each."""
    orders = []
    for name, study in STUDIES.items():
        run_order(settings, order(settings, study, "cohort", f"cohort-{name}").task_id)
        version = encode_weights(initial_weights(study))
        digest = digest_of_bytes(version)
        (settings.paths.blobs / hex_of(digest)).write_bytes(version)
        noise = noise_multiplier_of(study)
        for number in ROUNDS:
            fields = {"round": number, "base_blob": digest, "noise_multiplier": noise}
            orders.append(order(settings, study, "train", f"{name}-{number}", **fields))
    return orders


def done(settings: SiteSettings) -> list[str]:
    """Return the jobs that the workers say they have done, each as often as they say it."""
    log = (settings.paths.logs / "worker.log").read_text(encoding="utf-8")
    return re.findall(r"outcome=done task=(\S+)", log)


def updates(settings: SiteSettings, orders: list[WorkOrder]) -> dict[str, bytes]:
    candidates = {made.task_id: read_candidate(settings.paths, made.task_id) for made in orders}
    assert {found.kind for found in candidates.values() if found is not None} == {"update"}
    return {task_id: payload_path(settings.paths, task_id).read_bytes() for task_id in candidates}


def test_two_workers_train_two_studies_and_make_what_one_process_makes(tmp_path: Path) -> None:
    hospital = make_hospital(tmp_path / "images", patients=24, size=16, split=lambda _: "train")
    with running_redis(tmp_path) as address:
        settings = create_site(
            tmp_path / "site", "st-anna", "http://hub.test", [hospital.folder], redis_url=address, threads=1
        )
        index_folder([hospital.folder], settings.paths.index)
        orders = order_all(settings)
        shutil.copytree(settings.paths.root, tmp_path / "other")
        app = make_app(settings)
        with running_worker(settings), running_worker(settings):
            for made in (*orders, *orders):  # each delivered twice
                assert enqueue(app, made.task_id)
            until(lambda: len(done(settings)) >= len(orders), 120.0)
    assert sorted(done(settings)) == sorted(made.task_id for made in orders)
    alone = load_settings(tmp_path / "other")
    for made in orders:
        run_order(alone, made.task_id)
    assert updates(settings, orders) == updates(alone, orders)
    receipts = [json.loads(path.read_text()) for path in settings.paths.worker_receipts.glob("*-[12].json")]
    assert [receipt["kind"] for receipt in receipts] == ["train"] * len(orders)
    assert len(set(updates(settings, orders).values())) == len(orders)
