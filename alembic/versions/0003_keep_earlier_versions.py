"""Keep with a batch which versions of its files were loaded when it was claimed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("earlier", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("batches", "earlier")
