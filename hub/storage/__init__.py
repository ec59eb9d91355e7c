"""Tables, queries and migrations: the only folder that imports SQLAlchemy and Alembic."""
