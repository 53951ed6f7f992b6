from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, update

from app.domain.errors import KeyAtWorkError, KeyReusedError
from app.domain.service import AnswerBegun, KeptAnswer
from app.persistence.answers import KEPT, LONGEST_REQUEST
from app.persistence.schema import idempotency_keys
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.service_desk import ServiceDesk

ANSWER = KeptAnswer(201, '{"id": "1"}', {"ETag": '"1"'})


def test_the_same_request_has_the_same_answer(store: SqlServiceStore) -> None:
    assert isinstance(store.begin_answer("t", "k", "hash"), AnswerBegun)
    store.keep_answer("t", "k", ANSWER)
    assert store.begin_answer("t", "k", "hash") == ANSWER
    assert isinstance(store.begin_answer("other tenant", "k", "hash"), AnswerBegun)
    with pytest.raises(KeyReusedError):
        store.begin_answer("t", "k", "another hash")


def test_a_request_at_work_is_not_begun_twice(store: SqlServiceStore) -> None:
    assert isinstance(store.begin_answer("t", "k", "hash"), AnswerBegun)
    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    store.forget_answer("t", "k")
    assert isinstance(store.begin_answer("t", "k", "another hash"), AnswerBegun)
    store.keep_answer("t", "k", ANSWER)
    store.forget_answer("t", "k")
    assert store.begin_answer("t", "k", "another hash") == ANSWER


def test_a_key_is_free_again_when_its_day_is_over(store: SqlServiceStore) -> None:
    assert isinstance(store.begin_answer("t", "k", "hash"), AnswerBegun)
    store.keep_answer("t", "k", ANSWER)
    _grow_old(store, KEPT - timedelta(seconds=60))
    assert store.begin_answer("t", "k", "hash") == ANSWER
    _grow_old(store, KEPT + timedelta(seconds=60))
    assert isinstance(store.begin_answer("t", "k", "another hash"), AnswerBegun)


def test_a_request_that_died_is_carried_out_anew_to_make_the_same(store: SqlServiceStore) -> None:
    made_id = begun(store)
    _grow_old(store, LONGEST_REQUEST - timedelta(seconds=60))
    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    with pytest.raises(KeyReusedError):
        store.begin_answer("t", "k", "another hash")
    assert begun(store) == made_id
    # By one alone, until that one is dead too.
    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    assert begun(store) == made_id
    store.keep_answer("t", "k", ANSWER)
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    assert store.begin_answer("t", "k", "hash") == ANSWER


def test_what_is_made_under_a_key_that_is_free_again_is_another(store: SqlServiceStore) -> None:
    made_id = begun(store)
    store.forget_answer("t", "k")
    assert begun(store) != made_id
    assert begun(store, "another key") != made_id


def test_a_request_of_an_earlier_version_that_died_gets_an_id_to_keep(store: SqlServiceStore) -> None:
    begun(store)
    with store._write() as connection:
        connection.execute(update(idempotency_keys).values(made_id=None))
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    made_id = begun(store)
    _grow_old(store, LONGEST_REQUEST + timedelta(seconds=60))
    assert begun(store) == made_id


def test_a_key_that_is_let_go_while_it_is_asked_for_is_free_the_next_time(postgres_url: str, tmp_path: Path) -> None:
    """SQLite has one that writes at a time."""
    desk = ServiceDesk(postgres_url, tmp_path)
    store, other = desk.open(), desk.open()
    assert isinstance(other.begin_answer("t", "k", "hash"), AnswerBegun)

    @event.listens_for(store._engine, "after_cursor_execute")
    def let_go(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            other.forget_answer("t", "k")

    with pytest.raises(KeyAtWorkError):
        store.begin_answer("t", "k", "hash")
    assert isinstance(store.begin_answer("t", "k", "hash"), AnswerBegun)
    for one in (store, other):
        one.dispose()


def begun(store: SqlServiceStore, key: str = "k") -> str:
    """The id of what the request under that key is to make."""
    found = store.begin_answer("t", key, "hash")
    assert isinstance(found, AnswerBegun)
    return found.made_id


def _grow_old(store: SqlServiceStore, age: timedelta) -> None:
    with store._write() as connection:
        connection.execute(update(idempotency_keys).values(created_at=datetime.now(UTC) - age))
