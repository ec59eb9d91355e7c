"""SCAFFOLD's control variate goes out with the second round's tasks, to the sites that are asked and nobody else."""

from collections.abc import Iterator

import httpx
import pytest

from compose.in_memory import BASE_URL, InMemoryTransport
from hub.api.app import assemble
from hub.auth.coordinator import add_person
from hub.services import Services
from protocol.messages import RoundTask, TaskKind
from protocol.study import StudySpec
from protocol.tensors import decode_weights
from tests.hub.conftest import PASSWORD
from tests.hub.rounds.bench import Bench, assert_equal, filled, study_of

RATE, STEPS = 0.5, 2


@pytest.fixture
def client(services: Services) -> Iterator[httpx.Client]:
    with httpx.Client(transport=InMemoryTransport(assemble(services)), base_url=BASE_URL) as opened:
        yield opened


def scaffold() -> StudySpec:
    terms = {"learning_rate": RATE, "local_steps": STEPS, "sampling_rate": 0.1}
    return study_of(strategy={"name": "scaffold", "weighting": "equal"}, training=terms)


def second_round(bench: Bench) -> list[RoundTask]:
    bench.begin(scaffold())
    first = bench.tasks(TaskKind.TRAIN)
    assert [task.control for task in first] == [None, None, None]
    bench.train_all(0.25, 0.5, 0.75)
    bench.close()
    bench.report_all()
    return bench.tasks(TaskKind.TRAIN)


def path_of(task: RoundTask) -> str:
    assert task.control is not None
    return f"/v1/blobs/{task.control.weights_digest.removeprefix('sha256:')}"


def test_the_second_round_s_tasks_name_it_in_the_form_of_the_version(bench: Bench) -> None:
    tasks = second_round(bench)
    assert len({task.control for task in tasks}) == 1
    for task in tasks:
        assert task.base is not None
        assert task.control is not None
        assert task.control.weights_digest != task.base.weights_digest
        assert task.control.model_copy(update={"weights_digest": task.base.weights_digest}) == task.base


def test_a_site_that_is_asked_fetches_it_and_its_bytes_are_counted(bench: Bench, client: httpx.Client) -> None:
    task = second_round(bench)[0]
    answer = client.get(path_of(task), headers=bench.hospital(task.site).sign_in(client))
    assert answer.status_code == 200
    # All three answered: c = -mean(d) / (K eta) = -0.5 / (2 x 0.5)
    assert_equal(decode_weights(answer.content), filled(-0.5))
    [site] = [site for site in bench.round()["sites"] if site["site"] == task.site]
    assert site["bytes_down"] == len(answer.content)


def test_a_person_does_not_fetch_it(bench: Bench, services: Services, client: httpx.Client) -> None:
    task = second_round(bench)[0]
    add_person(services, "reader", "researcher", PASSWORD, "operator:console")
    token = client.post("/v1/token/person", json={"name": "reader", "password": PASSWORD}).json()["access_token"]
    answer = client.get(path_of(task), headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 404
