"""Note which ingestions of a table belong to another installation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "foreign_ingestions",
        sa.Column("table_id", sa.Integer(), nullable=False),
        sa.Column("ingestion_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["table_id"], ["tables.id"], name=op.f("fk_foreign_ingestions_table_id")),
        sa.PrimaryKeyConstraint("table_id", "ingestion_id", name=op.f("pk_foreign_ingestions")),
    )


def downgrade() -> None:
    op.drop_table("foreign_ingestions")
