"""Runs the migrations, on the connection that the program hands over, or on the settings' database when run by hand."""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from app.config import read_settings
from app.domain.errors import AutoloaderError
from app.persistence.database import open_engine, parse_url, translated
from app.persistence.postgres import is_postgres, lock_migrations, open_postgres
from app.persistence.schema import metadata


def _migrate(connection: Connection) -> None:
    # Before anything else: inside the transaction that it begins Alembic makes none, and whoever opened the connection
    # commits.
    lock_migrations(connection)
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


def _migrate_by_hand() -> None:
    url = parse_url(read_settings().ledger_url)
    # A migration may take as long as it needs.
    engine = open_postgres(url, statement_timeout_s=0) if is_postgres(url) else open_engine(url, create=True)
    with translated(url), engine.connect() as opened:
        _migrate(opened)
        opened.commit()
    engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    try:
        _migrate_by_hand()
    except AutoloaderError as error:
        # Alembic's command prints it without a traceback.
        raise CommandError(str(error)) from error
