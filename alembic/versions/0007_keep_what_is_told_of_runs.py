"""Keep events, the progress and the log lines of runs, and what is counted for good."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PROGRESS = sa.text("kind = 'run.progress'")
_LAST_SUCCESS = (
    "update ingestions set last_success_at = (select max(runs.ended_at) from runs "
    "where runs.ingestion_id = ingestions.id and runs.status = 'success')"
)


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("ingestion_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        # An id is never given twice, not even when the newest events are gone.
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_progress", "events", ["run_id"], sqlite_where=_PROGRESS, postgresql_where=_PROGRESS)
    op.create_index("ix_events_created_at", "events", ["created_at"])
    op.create_table(
        "run_logs",
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_run_logs")),
    )
    op.create_index("ix_run_logs_at", "run_logs", ["at"])
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "label", name=op.f("pk_counters")),
    )
    op.add_column("runs", sa.Column("progress", sa.Text(), nullable=True))
    op.add_column("ingestions", sa.Column("last_success_at", sa.BigInteger(), nullable=True))
    op.execute(_LAST_SUCCESS)


def downgrade() -> None:
    op.drop_column("ingestions", "last_success_at")
    op.drop_column("runs", "progress")
    op.drop_table("counters")
    op.drop_index("ix_run_logs_at", "run_logs")
    op.drop_table("run_logs")
    op.drop_index("ix_events_created_at", "events")
    op.drop_index("ix_events_progress", "events")
    op.drop_table("events")
