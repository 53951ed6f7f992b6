"""Note of a run when it was handed over to the queue of runs with much to load."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("handed_over_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "handed_over_at")
