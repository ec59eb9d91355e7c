"""Which round's close takes an update, and how old the version was that it was made on.

Until now every accepted update belonged to the close of its own round; the rows that are there say so.
Revision: 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("updates", sa.Column("taken_in", sa.Integer(), nullable=True))
    op.add_column("updates", sa.Column("staleness", sa.Integer(), nullable=False, server_default="0"))
    # A round that still trains takes its updates when it closes, as it does now.
    op.execute(
        "UPDATE updates SET taken_in = round WHERE NOT EXISTS (SELECT 1 FROM rounds WHERE rounds.study = updates.study "
        "AND rounds.number = updates.round AND rounds.state = 'training')"
    )


def downgrade() -> None:
    op.drop_column("updates", "staleness")
    op.drop_column("updates", "taken_in")
