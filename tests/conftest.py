"""What all tests share.

They run side by side, so each process gets one processor thread, or they would wait for each other's. A command that a
test runs in this process may configure the logs onto a captured stream; the next test begins with the defaults.
No example of a property has to be done within a time: the machines are noisy.
"""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
