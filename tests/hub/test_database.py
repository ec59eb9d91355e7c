"""The database: what a writer promises under concurrency, and that the migrations build the tables of the code."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from hub.audit.log import append
from hub.audit.verify import verify_entries
from hub.services import Services
from hub.storage import audit_stores, stores
from hub.storage.database import Database, text
from hub.storage.migrate import MIGRATIONS, is_current, newest_revision, upgrade
from hub.storage.tables import Base, SiteRow

pytestmark = pytest.mark.both_databases


def test_migrations_build_exactly_the_tables_of_the_code(services: Services) -> None:
    with services.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert is_current(services.database)


def test_the_newest_revision_by_name_is_the_one_that_alembic_would_reach() -> None:
    assert newest_revision() == ScriptDirectory(str(MIGRATIONS)).get_current_head()


def test_a_database_without_the_newest_migration_is_not_current(services: Services) -> None:
    with services.database.writing_connection() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert not is_current(services.database)


def test_at_sqlite_a_writer_asks_only_when_the_writers_of_its_process_are_done(services: Services) -> None:
    database, begun = services.database, list[object]()
    if database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL lets writers in as they came")
    event.listen(database.engine, "begin", begun.append)

    def write() -> None:
        with database.transaction() as session:
            session.execute(text("select 1"))

    second = threading.Thread(target=write)
    with database.transaction() as session:
        session.execute(text("select 1"))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert len(begun) == 1
    second.join()
    assert len(begun) == 2


def test_upgrading_again_changes_nothing(services: Services) -> None:
    upgrade(services.database)
    assert is_current(services.database)


def test_processes_that_start_together_upgrade_once(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path / 'hub.sqlite'}") for _ in range(4)]
    threads = [threading.Thread(target=upgrade, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_current(databases[0])
    for database in databases:
        database.close()


def test_a_transaction_that_raises_leaves_nothing(services: Services) -> None:
    with pytest.raises(RuntimeError), services.transaction() as session:  # noqa: PT012 - the block is the case
        session.add(SiteRow(name="anna", state="invited"))
        session.flush()
        raise RuntimeError
    with services.reading() as session:
        assert stores.find_site(session, "anna") is None


def test_writers_that_read_before_they_write_wait_for_each_other(services: Services) -> None:
    def write(actor: str) -> None:
        for _ in range(25):
            with services.transaction() as session:
                append(session, 0.0, actor, "thing.done", "it", {})

    threads = [threading.Thread(target=write, args=(f"person:{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with services.reading() as session:
        verdict = verify_entries(audit_stores.stream(session))
    assert verdict.ok
    assert verdict.entries == 100


def test_a_site_is_woken_and_work_enqueued_only_after_the_commit(services: Services) -> None:
    from hub.services import enqueue_after_commit

    queue = services.enqueue
    with services.transaction() as session:
        enqueue_after_commit(session, "aggregate", {"round": 1})
        assert queue.items == []  # type: ignore[attr-defined]
    assert queue.items == [("aggregate", {"round": 1})]  # type: ignore[attr-defined]


def test_a_connection_in_use_when_the_database_is_closed_is_closed_when_it_comes_back(services: Services) -> None:
    connection = services.database.engine.connect()
    connection.execute(text("select 1"))
    raw = connection.connection.dbapi_connection
    services.database.close()
    connection.close()
    if services.database.engine.dialect.name == "postgresql":
        assert raw is not None
        assert raw.closed
