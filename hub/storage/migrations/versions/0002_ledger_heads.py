"""The sites' privacy ledgers, as their signed charges tell them.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ledger_charges",
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("chain", sa.String(length=71), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("follows", sa.String(length=71), nullable=True),
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("training_epsilon", sa.Float(), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("site", "chain"),
    )
    op.create_index("ix_ledger_charges_study", "ledger_charges", ["study"])

    op.create_table(
        "ledger_heads",
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.PrimaryKeyConstraint("site"),
    )


def downgrade() -> None:
    op.drop_table("ledger_heads")
    op.drop_index("ix_ledger_charges_study", "ledger_charges")

    op.drop_table("ledger_charges")
