"""First tables.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.String(length=71), nullable=False),
        sa.Column("chain", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("password_hash", sa.String(length=300), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sites",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("identity_key", sa.String(length=100), nullable=True),
        sa.Column("transport_key", sa.String(length=100), nullable=True),
        sa.Column("code_hash", sa.String(length=200), nullable=True),
        sa.Column("code_expires_at", sa.Float(), nullable=True),
        sa.Column("enrolled_at", sa.Float(), nullable=True),
        sa.Column("last_seen_at", sa.Float(), nullable=True),
        sa.Column("activity", sa.String(length=20), nullable=False),
        sa.Column("activity_task", sa.String(length=200), nullable=True),
        sa.Column("activity_fraction", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "studies",
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("specification", sa.LargeBinary(), nullable=False),
        sa.Column("noise_multiplier", sa.Float(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("proposed_by", sa.String(length=63), nullable=False),
        sa.Column("proposed_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("final_version", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(length=63), nullable=False),
        sa.Column("decision", sa.String(length=20), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("decisions_of_version", "decisions", ["study", "version"])

    op.create_table(
        "mailbox",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("posted_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index("ix_mailbox_site", "mailbox", ["site"])

    op.create_table(
        "participants",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("training_patients", sa.Integer(), nullable=False),
        sa.Column("evaluates", sa.Boolean(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("approval", sa.LargeBinary(), nullable=True),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("study", "site"),
    )
    op.create_table(
        "rounds",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("deadline_at", sa.Float(), nullable=False),
        sa.Column("phase_at", sa.Float(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("study", "number"),
    )
    op.create_index("ix_rounds_state", "rounds", ["state"])

    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=200), nullable=False),
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("opened_at", sa.Float(), nullable=False),
        sa.Column("answered_at", sa.Float(), nullable=True),
        sa.Column("bytes_down", sa.BigInteger(), nullable=False),
        sa.Column("bytes_up", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("task_id"),
        sa.UniqueConstraint("study", "round", "site", "kind"),
    )
    op.create_index("ix_tasks_site", "tasks", ["site"])
    op.create_index("ix_tasks_study", "tasks", ["study"])

    op.create_table(
        "versions",
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("weights_digest", sa.String(length=71), nullable=False),
        sa.Column("weights_bytes", sa.BigInteger(), nullable=False),
        sa.Column("manifest_digest", sa.String(length=71), nullable=False),
        sa.Column("lineage", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.PrimaryKeyConstraint("study", "number"),
    )
    op.create_index("ix_versions_weights_digest", "versions", ["weights_digest"])

    op.create_table(
        "evaluations",
        sa.Column("task_id", sa.String(length=200), nullable=False),
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["tasks.task_id"],
        ),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("ix_evaluations_study", "evaluations", ["study"])

    op.create_table(
        "updates",
        sa.Column("task_id", sa.String(length=200), nullable=False),
        sa.Column("study", sa.String(length=71), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("blob", sa.String(length=71), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("norm", sa.Float(), nullable=False),
        sa.Column("epsilon", sa.Float(), nullable=True),
        sa.Column("delta", sa.Float(), nullable=True),
        sa.Column("notice", sa.LargeBinary(), nullable=False),
        sa.Column("accepted_at", sa.Float(), nullable=False),
        sa.Column("counted_in", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["site"],
            ["sites.name"],
        ),
        sa.ForeignKeyConstraint(
            ["study"],
            ["studies.digest"],
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["tasks.task_id"],
        ),
        sa.PrimaryKeyConstraint("task_id"),
        sa.UniqueConstraint("study", "round", "site"),
    )
    op.create_index("ix_updates_study", "updates", ["study"])

    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.String(length=200), nullable=False),
        sa.Column("notice", sa.LargeBinary(), nullable=False),
        sa.Column("payload_digest", sa.String(length=71), nullable=False),
        sa.Column("payload_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["tasks.task_id"],
        ),
        sa.PrimaryKeyConstraint("upload_id"),
        sa.UniqueConstraint("task_id"),
    )


def downgrade() -> None:
    op.drop_table("uploads")
    op.drop_index("ix_updates_study", "updates")

    op.drop_table("updates")
    op.drop_index("ix_evaluations_study", "evaluations")

    op.drop_table("evaluations")
    op.drop_index("ix_versions_weights_digest", "versions")

    op.drop_table("versions")
    op.drop_index("ix_tasks_study", "tasks")
    op.drop_index("ix_tasks_site", "tasks")

    op.drop_table("tasks")
    op.drop_index("ix_rounds_state", "rounds")

    op.drop_table("rounds")
    op.drop_table("participants")
    op.drop_index("ix_mailbox_site", "mailbox")

    op.drop_table("mailbox")
    op.drop_index("decisions_of_version", "decisions")

    op.drop_table("decisions")
    op.drop_table("studies")
    op.drop_table("sites")
    op.drop_table("people")
    op.drop_table("audit")
