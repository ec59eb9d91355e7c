"""What sites told of their readiness for a study, before they answered.

Revision: 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "readiness_reports",
        sa.Column("study", sa.String(71), nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["sites.name"]),
        sa.ForeignKeyConstraint(["study"], ["studies.digest"]),
        sa.PrimaryKeyConstraint("study", "site", "number"),
    )


def downgrade() -> None:
    op.drop_table("readiness_reports")
