"""Note with an idempotency key the id of what its request makes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("made_id", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("idempotency_keys", "made_id")
