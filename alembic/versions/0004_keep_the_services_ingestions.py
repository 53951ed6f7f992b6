"""Keep the service's ingestions, their credentials, its runs and the answers that are given again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LIVING_SERVICE = "kind = 'service' and deleted_at is null"
_INGESTION_COLUMNS = (
    ("tenant", sa.String(length=64), "default"),
    ("name", sa.Text(), None),
    ("status", sa.String(length=16), "active"),
    ("document", sa.Text(), None),
    ("version", sa.Integer(), "1"),
    ("updated_at", sa.BigInteger(), None),
    ("deployment_id", sa.String(length=64), None),
    ("deployment_fingerprint", sa.Text(), None),
    ("discovered_bytes", sa.BigInteger(), None),
    ("deleted_at", sa.BigInteger(), None),
)
_RUN_COLUMNS = (
    ("retry_of", sa.String(length=64), None),
    ("flow_run_id", sa.String(length=64), None),
    ("attempts", sa.Integer(), "0"),
    ("next_attempt_at", sa.BigInteger(), None),
    ("claimed_until", sa.BigInteger(), None),
    ("cancel_requested_at", sa.BigInteger(), None),
    ("only_keys", sa.Text(), None),
    ("errors", sa.Text(), None),
    ("files_replaced", sa.BigInteger(), "0"),
    ("files_appended", sa.BigInteger(), "0"),
)


_INDEXES = (
    ("uq_ingestions_name", "ingestions", ["tenant", "name"], True, sa.text(_LIVING_SERVICE)),
    ("uq_runs_flow_run", "runs", ["flow_run_id"], True, sa.text("flow_run_id is not null")),
    ("ix_runs_not_over", "runs", ["status"], False, sa.text("status in ('queued', 'running')")),
)


def upgrade() -> None:
    for table, columns in (("ingestions", _INGESTION_COLUMNS), ("runs", _RUN_COLUMNS)):
        for name, kind, default in columns:
            op.add_column(table, sa.Column(name, kind, nullable=default is None, server_default=default))
    op.create_index("ix_runs_of_ingestion", "runs", ["ingestion_id", "created_at"])
    for name, table, names, unique, where in _INDEXES:
        op.create_index(name, table, names, unique=unique, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "secrets",
        sa.Column("ingestion_id", sa.String(length=64), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["ingestion_id"], ["ingestions.id"], name=op.f("fk_secrets_ingestion_id")),
        sa.PrimaryKeyConstraint("ingestion_id", name=op.f("pk_secrets")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )


def downgrade() -> None:
    for table in ("installation", "idempotency_keys", "secrets"):
        op.drop_table(table)
    for name, table, _names, _unique, _where in reversed(_INDEXES):
        op.drop_index(name, table)
    op.drop_index("ix_runs_of_ingestion", "runs")
    for table, columns in (("runs", _RUN_COLUMNS), ("ingestions", _INGESTION_COLUMNS)):
        for name, _kind, _default in reversed(columns):
            op.drop_column(table, name)
