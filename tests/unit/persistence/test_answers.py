from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, update

from app.domain.errors import KeyAtWorkError, KeyReusedError
from app.domain.service import KeptAnswer
from app.persistence.answers import KEPT, LONGEST_REQUEST
from app.persistence.schema import idempotency_keys
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.service_desk import ServiceDesk

ANSWER = KeptAnswer(201, '{"id": "1"}', {"ETag": '"1"'})


def test_the_same_request_has_the_same_answer(store: SqlServiceStore) -> None:
    assert store.begin_answer("t", "k", "hash") is None
    store.keep_answer("t", "k", ANSWER)
    assert store.begin_answer("t", "k", "hash") == ANSWER
    assert store.begin_answer("other tenant", "k", "hash") is None
    with pytest.raises(KeyReusedError):
        store.begin_answer("t", "k", "another hash")


def test_a_request_at_work_is_not_begun_twice(store: SqlServiceStore) -> None:
    assert store.begin_answer("t", "k", "hash") is None
    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    store.forget_answer("t", "k")
    assert store.begin_answer("t", "k", "another hash") is None
    store.keep_answer("t", "k", ANSWER)
    store.forget_answer("t", "k")
    assert store.begin_answer("t", "k", "another hash") == ANSWER


def test_a_key_is_free_again_when_its_day_is_over(store: SqlServiceStore) -> None:
    assert store.begin_answer("t", "k", "hash") is None
    store.keep_answer("t", "k", ANSWER)
    _grow_old(store, KEPT - timedelta(seconds=60))
    assert store.begin_answer("t", "k", "hash") == ANSWER
    _grow_old(store, KEPT + timedelta(seconds=60))
    assert store.begin_answer("t", "k", "another hash") is None


def test_a_key_is_free_again_when_its_request_died(store: SqlServiceStore) -> None:
    assert store.begin_answer("t", "k", "hash") is None
    _grow_old(store, LONGEST_REQUEST - timedelta(seconds=60))
    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    assert store.begin_answer("t", "k", "another hash") is None


def test_a_key_that_is_let_go_while_it_is_asked_for_is_free_the_next_time(postgres_url: str, tmp_path: Path) -> None:
    """SQLite has one that writes at a time."""
    desk = ServiceDesk(postgres_url, tmp_path)
    store, other = desk.open(), desk.open()
    assert other.begin_answer("t", "k", "hash") is None

    @event.listens_for(store._engine, "after_cursor_execute")
    def let_go(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            other.forget_answer("t", "k")

    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    assert store.begin_answer("t", "k", "hash") is None
    for one in (store, other):
        one.dispose()


def _grow_old(store: SqlServiceStore, age: timedelta) -> None:
    with store._write() as connection:
        connection.execute(update(idempotency_keys).values(created_at=datetime.now(UTC) - age))
