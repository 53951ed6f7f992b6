"""Answers that are given again for the same idempotency key, and what tells this installation from others."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from app.domain.errors import KeyAtWorkError, KeyReusedError
from app.domain.service import KeptAnswer
from app.persistence.schema import idempotency_keys, installation
from app.persistence.store import SqlStore

KEPT = timedelta(hours=24)
# A request takes no longer: then its process is gone.
LONGEST_REQUEST = timedelta(minutes=5)
_INSTALLATION_ID = "id"


class SqlKeptAnswers(SqlStore):
    """Keeps the promises of `domain.service.KeptAnswers` and `Installation`."""

    def begin_answer(self, tenant: str, key: str, request_hash: str) -> KeptAnswer | None:
        """The answer that was given; None where this is the first request."""
        this = (idempotency_keys.c.tenant == tenant) & (idempotency_keys.c.key == key)
        with self._write() as connection:
            # By the clock that all processes share: one whose own is ahead would take others' requests for abandoned.
            now = self._now(connection)
            connection.execute(delete(idempotency_keys).where(_is_old(now)))
            made = connection.execute(
                self._insert(idempotency_keys)
                .values(tenant=tenant, key=key, request_hash=request_hash, created_at=now)
                .on_conflict_do_nothing()
                .returning(idempotency_keys.c.key)
            ).first()
            if made is not None:
                return None
            row = connection.execute(select(idempotency_keys).where(this)).first()
        if row is not None and row.request_hash != request_hash:
            raise KeyReusedError
        if row is None or row.status is None:
            # It is gone where its request was refused this very moment, and did nothing.
            raise KeyAtWorkError
        return KeptAnswer(row.status, row.body, json.loads(row.headers))

    def keep_answer(self, tenant: str, key: str, answer: KeptAnswer) -> None:
        """Keep the answer."""
        with self._write() as connection:
            connection.execute(
                update(idempotency_keys)
                .where(idempotency_keys.c.tenant == tenant, idempotency_keys.c.key == key)
                .values(status=answer.status, body=answer.body, headers=json.dumps(dict(answer.headers)))
            )

    def forget_answer(self, tenant: str, key: str) -> None:
        """Let the key be used again."""
        with self._write() as connection:
            connection.execute(
                delete(idempotency_keys).where(
                    idempotency_keys.c.tenant == tenant,
                    idempotency_keys.c.key == key,
                    idempotency_keys.c.status.is_(None),
                )
            )

    def noted(self, name: str) -> str | None:
        """What was noted under that name."""
        with self._read() as connection:
            found: str | None = connection.execute(
                select(installation.c.value).where(installation.c.name == name)
            ).scalar()
            return found

    def note(self, name: str, value: str) -> None:
        """Note something, in the place of what was noted before."""
        with self._write() as connection:
            statement = self._insert(installation).values(name=name, value=value)
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))

    def now(self) -> datetime:
        """The time by the database's clock."""
        with self._read() as connection:
            return self._now(connection)

    def installation_id(self) -> str:
        """Tells this installation from others; made when it is first asked for."""
        this = select(installation.c.value).where(installation.c.name == _INSTALLATION_ID)
        with self._read() as connection:
            known: str | None = connection.execute(this).scalar()
        if known is not None:
            return known
        with self._write() as connection:
            connection.execute(
                self._insert(installation)
                .values(name=_INSTALLATION_ID, value=uuid.uuid4().hex[:12])
                .on_conflict_do_nothing()
            )
            made: str = connection.execute(this).scalar_one()
            return made


def _is_old(now: datetime) -> ColumnElement[bool]:
    since = idempotency_keys.c.created_at
    abandoned = and_(idempotency_keys.c.status.is_(None), since < now - LONGEST_REQUEST)
    return or_(since < now - KEPT, abandoned)
