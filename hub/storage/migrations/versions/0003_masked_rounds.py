"""Masked rounds, what the sites said in them, and the held-out counts that were opened.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "masking_rounds",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("task_kind", sa.String(length=20), nullable=False),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("deadline_at", sa.Float(), nullable=False),
        sa.Column("roster_digest", sa.String(length=71), nullable=True),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("roster", sa.Text(), nullable=False),
        sa.Column("members", sa.Text(), nullable=False),
        sa.Column("survivors", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["studies.digest"]),
        sa.PrimaryKeyConstraint("study", "round", "task_kind"),
    )
    op.create_table(
        "masking_messages",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("task_kind", sa.String(length=20), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["sites.name"]),
        sa.ForeignKeyConstraint(["study"], ["studies.digest"]),
        sa.PrimaryKeyConstraint("study", "round", "task_kind", "site", "kind"),
    )
    op.create_table(
        "pooled_evaluations",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["studies.digest"]),
        sa.PrimaryKeyConstraint("study", "version"),
    )


def downgrade() -> None:
    op.drop_table("pooled_evaluations")
    op.drop_table("masking_messages")
    op.drop_table("masking_rounds")
