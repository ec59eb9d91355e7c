"""Heartbeats: fixed words, at most one a second, none on top of one that waits."""

import numpy as np

from site_node.governance import hash_chain
from site_node.governance.records import open_records
from site_node.overview import status_of
from tests.fakes.gated_site import GatedSite, study_of


def test_progress_leaves_at_most_once_a_second_in_fixed_words(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    site.receive_all()
    site.sweep()
    file = site.paths.progress / f"{task.task_id}.json"
    for fraction in np.linspace(0.1, 0.9, 20):
        file.write_text(f'{{"activity": "training", "fraction": {fraction}}}')
        site.now += 0.1
        site.sweep()
        site.receive_all()
        site.sweep()
    file.write_text('{"activity": "John Doe", "fraction": 0.5}')
    site.now += 5
    site.sweep()
    kinds = [entry["kind"] for entry in hash_chain.entries(open_records(site.paths), "egress")]
    assert kinds.count("wardround.progress/1") in (2, 3)
    assert all(b"John" not in data for data in site.seen.values())


def test_progress_does_not_heap_up_while_the_hub_is_away(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))
    for step in range(10):
        file = site.paths.progress / f"{task.task_id}.json"
        file.write_text(f'{{"activity": "training", "fraction": {step / 10}}}')
        site.now += 2
        site.sweep()
    kinds = [entry["kind"] for entry in hash_chain.entries(open_records(site.paths), "egress")]
    assert kinds.count("wardround.progress/1") == 1


def test_the_status_says_how_far_a_task_is(site: GatedSite) -> None:
    study = study_of()
    site.join(study)
    task = site.give(site.task(study))

    def told() -> list[dict[str, object]]:
        found: list[dict[str, object]] = status_of(site.settings, open_records(site.paths))["tasks"]
        return found

    assert told() == [{"task_id": task.task_id, "state": "accepted"}]
    file = site.paths.progress / f"{task.task_id}.json"
    file.write_text('{"activity": "training", "fraction": 0.4}')
    assert told() == [{"task_id": task.task_id, "state": "accepted", "activity": "training", "fraction": 0.4}]
