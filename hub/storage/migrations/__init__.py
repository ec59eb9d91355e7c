"""Alembic migrations of the hub's tables; `hub/storage/migrate.py` applies them."""
