"""The receipts that travel with updates: of how many patients each was made.

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("updates") as table:
        table.add_column(sa.Column("receipt", sa.String(400), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("updates") as table:
        table.drop_column("receipt")
