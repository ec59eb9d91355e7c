"""Alembic's environment: runs on the connection that `migrate.py` opened; there is no offline mode."""

from alembic import context

from hub.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
