"""One transaction for many sites: the database is asked as often for twelve as for three."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from hub.audit.verify import verify_entries
from hub.auth.coordinator import enrol_site, invite_site
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.studies import coordinator as studies
from protocol.messages import RoundTask, StudyClosed, StudyProposal, TaskKind
from protocol.signing import read_unverified
from tests.fakes.hospital import Hospital
from tests.hub.conftest import Clock
from tests.hub.rounds.bench import ZERO, Bench, filled, study_of

pytestmark = pytest.mark.both_databases
MORE = 9


@contextmanager
def statements(services: Services) -> Iterator[list[str]]:
    """Give the list of all statements sent to the database; one that writes many rows is one."""
    sent: list[str] = []

    def note(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        # SQLite hands out the numbers of mail row by row; there it is a call and no way to another process.
        if connection.dialect.name != "sqlite" or not statement.startswith("INSERT INTO mailbox"):
            sent.append(statement)

    event.listen(services.database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(services.database.engine, "before_cursor_execute", note)


@pytest.fixture
def grow(services: Services, bench: Bench, clock: Clock) -> Callable[[], None]:
    """Enrols nine more hospitals."""

    def enrol() -> None:
        for number in range(MORE):
            hospital = Hospital(f"more-{number}", clock)
            enrol_site(services, hospital.enrolment(invite_site(services, hospital.name, "operator:console").code))
            bench.hospitals.append(hospital)

    return enrol


def costs(bench: Bench, name: str) -> list[int]:
    """Run a study of one round and return the statements of each transaction that concerns all its sites."""
    everybody, study = len(bench.hospitals), study_of(name=name, rounds=1)
    found = []
    bench.study = study
    with statements(bench.services) as proposing:
        studies.propose(bench.services, study, [], "researcher")
    found.append(len(proposing))
    for hospital in bench.hospitals:
        bench.say(hospital, hospital.approval(study.digest, patients=10))
    (task,) = bench.tasks(TaskKind.INITIALISE)
    with statements(bench.services) as asking_judges:
        bench.update(task, ZERO)
    found.append(len(asking_judges))
    *others, last = bench.tasks(TaskKind.EVALUATE)
    for task in others:
        bench.report(task, [0.9], [0.1])
    with statements(bench.services) as opening:
        bench.report(last, [0.9], [0.1])
    found.append(len(opening))
    *others, last = bench.tasks(TaskKind.TRAIN)
    assert len(others) == everybody - 1
    for task in others:
        bench.update(task, filled(1.0))
    with statements(bench.services) as taking:
        bench.update(last, filled(1.0))
    found.append(len(taking))
    with statements(bench.services) as closing:
        assert bench.close()
    found.append(len(closing))
    with statements(bench.services) as stopping:
        studies.stop(bench.services, study.digest, "researcher")
    return [*found, len(stopping)]


def test_no_transaction_asks_the_database_once_for_each_site(bench: Bench, grow: Callable[[], None]) -> None:
    few = costs(bench, "few")
    grow()
    assert costs(bench, "many") == few
    with bench.services.reading() as session:
        assert verify_entries(audit_stores.stream(session)).ok


def test_each_site_has_its_own_tasks_in_the_order_in_which_they_were_posted(
    bench: Bench, grow: Callable[[], None]
) -> None:
    grow()
    bench.begin(study_of(), (10,) * len(bench.hospitals))
    for hospital in bench.hospitals:
        (proposal,), tasks = bench.mail(hospital, StudyProposal), bench.mail(hospital, RoundTask)
        assert proposal.ledger_head is None
        assert {task.site for task in tasks} == {hospital.name}
        assert [task.kind for task in tasks if task.kind is not TaskKind.INITIALISE] == ["evaluate", "train"]


def test_what_is_the_same_for_all_is_signed_once(bench: Bench) -> None:
    bench.start(study_of())
    studies.stop(bench.services, bench.study.digest, "researcher")
    with bench.services.reading() as session:
        letters = [row.envelope for h in bench.hospitals for row in stores.mail_after(session, h.name, 0, 100)]
    closing = [letter for letter in letters if b"study-closed" in read_unverified(letter)]
    assert len(closing) == len(bench.hospitals)
    assert len(set(closing)) == 1
    assert [len(bench.mail(hospital, StudyClosed)) for hospital in bench.hospitals] == [1, 1, 1]
