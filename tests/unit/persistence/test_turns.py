"""Writers of one process, one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from app.persistence import turns
from app.persistence.database import open_engine, parse_url
from app.persistence.turns import Line, in_turn

MANY = 20


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MANY) as pool:
        yield pool


def waiting(line: Line, count: int) -> None:
    """Until so many wait."""
    while len(line._waiting) != count:
        time.sleep(0.001)


def test_they_come_in_the_order_in_which_they_began_to_wait(pool: ThreadPoolExecutor) -> None:
    line, came = Line(), list[int]()

    def come(number: int) -> None:
        with line.turn():
            came.append(number)
            # Whoever comes late, and at once, passes nobody.
            time.sleep(0.001)

    asked: list[Future[None]] = []
    with line.turn():
        for number in range(MANY):
            asked.append(pool.submit(come, number))
            waiting(line, number + 1)
    for one in asked:
        one.result()
    assert came == list(range(MANY))
    with line.turn(0):
        assert line._is_taken
    assert not line._is_taken


def test_who_fails_gives_the_turn_on() -> None:
    line = Line()
    with pytest.raises(ZeroDivisionError), line.turn():
        raise ZeroDivisionError
    assert not line._is_taken


def test_who_has_no_turn_in_time_goes_on_without_one_and_takes_nobodys(pool: ThreadPoolExecutor) -> None:
    line, is_in = Line(), threading.Event()

    def impatient() -> None:
        with line.turn(0.05):
            is_in.set()

    with line.turn():
        pool.submit(impatient).result(60)
        assert is_in.is_set()
        assert line._is_taken
        assert not line._waiting
    assert not line._is_taken


def test_each_sqlite_database_has_a_line_of_its_own_and_postgresql_has_none(tmp_path: Path) -> None:
    one, other = (open_engine(parse_url(f"sqlite:///{tmp_path}/{name}.db"), create=True) for name in ("a", "b"))
    with in_turn(one), in_turn(other):
        assert [turns._lines[engine]._is_taken for engine in (one, other)] == [True, True]
    server: Engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    with in_turn(server), in_turn(server):
        assert server not in turns._lines
    for engine in (one, other, server):
        engine.dispose()
