"""Sums of ciphertexts, which the hub adds and cannot read.

Revision: 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "encrypted_sums",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("sum_digest", sa.String(length=71), nullable=False),
        sa.Column("sum_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["study"], ["studies.digest"]),
        sa.PrimaryKeyConstraint("study", "round"),
    )


def downgrade() -> None:
    op.drop_table("encrypted_sums")
