"""Answers that are given again for the same idempotency key, and what tells this installation from others."""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from app.domain.errors import KeyAtWorkError, KeyReusedError
from app.domain.service import AnswerBegun, KeptAnswer
from app.persistence.schema import idempotency_keys, installation
from app.persistence.store import SqlStore

KEPT = timedelta(hours=24)
# A request that has no answer by then is taken up again: its process is gone.
LONGEST_REQUEST = timedelta(minutes=5)
_INSTALLATION_ID = "id"


class SqlKeptAnswers(SqlStore):
    """Keeps the promises of `domain.service.KeptAnswers` and `Installation`."""

    def begin_answer(self, tenant: str, key: str, request_hash: str) -> KeptAnswer | AnswerBegun:
        """The answer that was given, or what the request is to make, where it is the first or its process died."""
        new_id = uuid.uuid4().hex
        with self._write() as connection:
            # By the clock that all processes share: one whose own is ahead would take others' requests for abandoned.
            now = self._now(connection)
            connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - KEPT))
            made = connection.execute(
                self._insert(idempotency_keys)
                .values(tenant=tenant, key=key, request_hash=request_hash, created_at=now, made_id=new_id)
                .on_conflict_do_nothing()
                .returning(idempotency_keys.c.key)
            ).first()
            if made is not None:
                return AnswerBegun(new_id)
            row = connection.execute(select(idempotency_keys).where(_this(tenant, key))).first()
            if row is not None and row.request_hash != request_hash:
                raise KeyReusedError
            if row is not None and row.status is not None:
                return KeptAnswer(row.status, row.body, json.loads(row.headers))
            # It is gone where its request was refused this very moment, and did nothing.
            made_id = None if row is None else _take_over(connection, tenant, key, now, row.made_id or new_id)
        if made_id is None:
            raise KeyAtWorkError
        return AnswerBegun(made_id)

    def keep_answer(self, tenant: str, key: str, answer: KeptAnswer) -> None:
        """Keep the answer."""
        with self._write() as connection:
            connection.execute(
                update(idempotency_keys)
                .where(_this(tenant, key))
                .values(status=answer.status, body=answer.body, headers=json.dumps(dict(answer.headers)))
            )

    def forget_answer(self, tenant: str, key: str) -> None:
        """Let the key be used again."""
        with self._write() as connection:
            connection.execute(delete(idempotency_keys).where(_this(tenant, key), idempotency_keys.c.status.is_(None)))

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


def _this(tenant: str, key: str) -> ColumnElement[bool]:
    return and_(idempotency_keys.c.tenant == tenant, idempotency_keys.c.key == key)


def _take_over(connection: Connection, tenant: str, key: str, now: datetime, made_id: str) -> str | None:
    """Begin a request anew whose process died, to make what that one made or was to make; None while it may live."""
    abandoned = and_(idempotency_keys.c.status.is_(None), idempotency_keys.c.created_at < now - LONGEST_REQUEST)
    # Of several who try, one finds it abandoned.
    taken = connection.execute(
        update(idempotency_keys).where(_this(tenant, key), abandoned).values(created_at=now, made_id=made_id)
    )
    return made_id if taken.rowcount else None
