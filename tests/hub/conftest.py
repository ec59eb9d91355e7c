"""A hub in a temporary folder, with a clock that tests set and a list instead of a worker.

It works on SQLite; the tests of a module marked `both_databases` run once more on a real PostgreSQL.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub.auth.coordinator import add_person, enrol_site, invite_site
from hub.services import Services, open_services
from hub.settings import Settings
from hub.storage.migrate import upgrade
from protocol.study import StudySpec, parse_study
from tests.fakes.hospital import Hospital
from tests.fakes.postgresql import cluster, fresh_database

PASSWORD = "a long enough password"


@dataclass
class Clock:
    """Stands still until a test moves it."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Queue:
    """Keeps what was enqueued."""

    items: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, name: str, arguments: dict[str, Any]) -> None:
        self.items.append((name, arguments))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue() -> Queue:
    return Queue()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked module's tests on both databases."""
    if "database_url" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_databases") is not None
        metafunc.parametrize("database_url", ["sqlite", "postgresql"] if both else ["sqlite"], indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Path]:
    """A PostgreSQL server: the folder of its socket."""
    with cluster() as folder:
        yield folder


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; empty for SQLite in the hub's folder."""
    return fresh_database(request.getfixturevalue("postgresql")) if request.param == "postgresql" else ""


@pytest.fixture
def services(tmp_path: Path, clock: Clock, queue: Queue, database_url: str) -> Iterator[Services]:
    opened = open_services(Settings(dir=tmp_path / "hub", database_url=database_url), queue, clock)
    upgrade(opened.database)
    yield opened
    opened.waker.close()
    opened.database.close()


@pytest.fixture
def hospitals(services: Services, clock: Clock) -> list[Hospital]:
    """Three enrolled hospitals: anna, bela, clara."""
    found = [Hospital(name, clock) for name in ("anna", "bela", "clara")]
    for hospital in found:
        code = invite_site(services, hospital.name, "operator:console").code
        enrol_site(services, hospital.enrolment(code))
    return found


@pytest.fixture
def people(services: Services) -> dict[str, str]:
    """One account for each role, named like it; returns name and password."""
    for role in ("researcher", "clinician", "operator"):
        add_person(services, role, role, PASSWORD, "operator:console")
    return dict.fromkeys(("researcher", "clinician", "operator"), PASSWORD)


def specification(**changes: Any) -> dict[str, Any]:
    """Return the data of a small legal study without DP."""
    return {
        "name": "tiny",
        "cohort": {"modality": ["DX"]},
        "label": {"classes": ["no", "yes"]},
        "network": {"name": "densenet"},
        "rounds": 2,
        "privacy": {"epsilon": None},
        "participants": {"minimum_sites": 2},
        **changes,
    }


@pytest.fixture
def spec() -> StudySpec:
    return parse_study(specification())
