"""What all tests share.

They run side by side, so each process gets one processor thread, or they would wait for each other's. A command that a
test runs in this process may configure the logs onto a captured stream; the next test begins with the defaults.
No example of a property has to be done within a time: the machines are noisy.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the development data where there is none, as in a user's clone, and say so."""
    if not SHARED_DATA.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="the development data is not beside the repository"))


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
