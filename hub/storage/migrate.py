"""Bring a database to this version's tables, with Alembic.

Alembic takes a fifth of a second to load, and a database that is up to date needs nothing of it: what was applied is
one row, and the newest revision is named by its file.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from hub.storage.database import Database, text

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
APPLIED_TABLE = "alembic_version"


def upgrade(database: Database) -> None:
    """Apply the migrations that are missing.

    Guarantee: all or none of them; processes that start together do it one after the other.
    """
    if is_current(database):
        return
    from alembic import command

    with database.writing_connection() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_current(database: Database) -> bool:
    """Tell whether the database has exactly this version's tables."""
    with database.engine.connect() as connection:
        return _applied(connection) == newest_revision()


def newest_revision() -> str:
    """Return the newest migration's revision: files are `REVISION_what_it_does.py`, one after the other."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _applied(connection: Connection) -> str | None:
    if not inspect(connection).has_table(APPLIED_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {APPLIED_TABLE}")).scalar()  # noqa: S608 -- a constant


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
