"""A hub with three enrolled hospitals that answer as tests wish."""

import pytest

from hub.services import Services
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Queue
from tests.hub.rounds.bench import Bench


@pytest.fixture
def bench(services: Services, hospitals: list[Hospital], queue: Queue) -> Bench:
    return Bench(services, hospitals, queue)
