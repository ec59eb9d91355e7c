"""What a site's approval says of its data's quality, where the study reads it.

Revision: 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("participants", sa.Column("quality", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("participants", "quality")
