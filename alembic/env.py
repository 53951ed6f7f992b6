"""Runs the migrations, on the connection that the program hands over, or on the settings' database when run by hand."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.config import read_settings
from app.persistence.database import open_engine, parse_url
from app.persistence.schema import metadata


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    engine = open_engine(parse_url(read_settings().ledger_url))
    with engine.connect() as opened:
        _migrate(opened)
        opened.commit()
    engine.dispose()
