"""Prefect's SQLite database, written in turn."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import MODELS_DEPENDENCIES
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.prefect.server import SqliteInTurn, configured

AT_ONCE = 8
# More than a pool of SQLAlchemy's has connections.
MANY = 30


@asynccontextmanager
async def counter(config: AioSqliteConfiguration) -> AsyncIterator[AsyncEngine]:
    """A database with a table that holds one number."""
    engine = await config.engine()
    async with await config.session(engine) as session, config.begin_transaction(session, with_for_update=True):
        await session.execute(text("create table counter (n integer)"))
        await session.execute(text("insert into counter values (0)"))
    yield engine
    await engine.dispose()


async def count(config: AioSqliteConfiguration, engine: AsyncEngine, everybody: asyncio.Barrier | None = None) -> None:
    """Read the number, and write it raised by one."""
    session: AsyncSession
    async with await config.session(engine) as session, config.begin_transaction(session):
        found = (await session.execute(text("select n from counter"))).scalar_one()
        if everybody is not None:
            await everybody.wait()
        await session.execute(text("update counter set n = :n"), {"n": found + 1})


async def number(config: AioSqliteConfiguration, engine: AsyncEngine) -> int:
    async with await config.session(engine) as session:
        return int((await session.execute(text("select n from counter"))).scalar_one())


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/prefect.db"


def test_transactions_that_read_and_then_write_are_all_made(tmp_path: Path) -> None:
    async def counted() -> int:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            await asyncio.gather(*(count(config, engine) for _ in range(AT_ONCE)))
            return await number(config, engine)

    assert asyncio.run(counted()) == AT_ONCE


def test_as_prefect_has_them_some_are_refused(tmp_path: Path) -> None:
    """What all this is for: when Prefect does not need it any more, it can go."""

    async def refused() -> int:
        config = AioSqliteConfiguration(connection_url=url(tmp_path))
        async with counter(config) as engine:
            # Both have read before either writes.
            both = asyncio.Barrier(2)
            ended = await asyncio.gather(*(count(config, engine, both) for _ in range(2)), return_exceptions=True)
            return sum(isinstance(one, OperationalError) for one in ended)

    assert asyncio.run(refused()) == 1


def test_a_transaction_inside_of_another_one_does_not_wait_for_it(tmp_path: Path) -> None:
    async def read() -> int:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            await count(config, engine)
            async with await config.session(engine) as outer, config.begin_transaction(outer):
                await outer.execute(text("update counter set n = 7"))
                async with await config.session(engine) as inner, config.begin_transaction(inner):
                    seen = (await inner.execute(text("select n from counter"))).scalar_one()
            # Its turn has ended with it.
            await count(config, engine)
            return int(seen) * 10 + await number(config, engine)

    assert asyncio.run(asyncio.wait_for(read(), 60)) == 18


def test_another_session_writes_where_a_transaction_has_only_read(tmp_path: Path) -> None:
    async def raised() -> int:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            async with await config.session(engine) as outer, config.begin_transaction(outer):
                await outer.execute(text("select n from counter"))
                await count(config, engine)
            return await number(config, engine)

    assert asyncio.run(asyncio.wait_for(raised(), 30)) == 1


def test_a_transaction_that_fails_or_is_cancelled_gives_its_turn_on(tmp_path: Path) -> None:
    async def counted() -> int:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            with pytest.raises(ZeroDivisionError):
                async with await config.session(engine) as session, config.begin_transaction(session):
                    raise ZeroDivisionError
            waits = asyncio.Event()

            async def wait() -> None:
                async with await config.session(engine) as session, config.begin_transaction(session):
                    waits.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(wait())
            await waits.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await count(config, engine)
            return await number(config, engine)

    assert asyncio.run(asyncio.wait_for(counted(), 60)) == 1


async def add(config: AioSqliteConfiguration, engine: AsyncEngine) -> None:
    """Raise the number by one as Prefect's services write: a statement by itself."""
    async with await config.session(engine) as session:
        await session.execute(text("update counter set n = n + 1"))
        await session.commit()


def test_a_statement_by_itself_waits_for_a_transaction_that_has_read(tmp_path: Path) -> None:
    async def counted(config: AioSqliteConfiguration, wait_s: float | None) -> int:
        async with counter(config) as engine:
            async with await config.session(engine) as session, config.begin_transaction(session):
                found = (await session.execute(text("select n from counter"))).scalar_one()
                # As a service does, whose task is not the transaction's.
                added = contextvars.Context().run(asyncio.create_task, add(config, engine))
                await asyncio.wait({added}, timeout=wait_s)
                await session.execute(text("update counter set n = :n"), {"n": found + 10})
            await added
            return await number(config, engine)

    assert asyncio.run(asyncio.wait_for(counted(SqliteInTurn(url(tmp_path)), wait_s=1.0), 150)) == 11
    (tmp_path / "prefect.db").unlink()
    with pytest.raises(OperationalError, match="locked"):
        asyncio.run(asyncio.wait_for(counted(AioSqliteConfiguration(connection_url=url(tmp_path)), wait_s=None), 150))


def test_a_transaction_goes_on_however_many_wait_for_its_end(tmp_path: Path) -> None:
    async def counted() -> int:
        # Nobody's patience ends sooner than the test's.
        config = SqliteInTurn(url(tmp_path), patience_s=3600.0)
        async with counter(config) as engine:
            async with await config.session(engine) as session, config.begin_transaction(session):
                # It has its turn, and no connection so far.
                added = [contextvars.Context().run(asyncio.create_task, add(config, engine)) for _ in range(MANY)]
                await asyncio.wait(added, timeout=1)
                await session.execute(text("update counter set n = 100"))
            await asyncio.gather(*added)
            return await number(config, engine)

    assert asyncio.run(asyncio.wait_for(counted(), 150)) == 100 + MANY


def test_a_statement_by_itself_that_fails_gives_its_turn_on(tmp_path: Path) -> None:
    async def counted() -> int:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            async with await config.session(engine) as session:
                with pytest.raises(OperationalError):
                    await session.execute(text("update nothing set n = 1"))
            assert not config.turn.locked()
            await add(config, engine)
            await count(config, engine)
            assert not config.turn.locked()
            return await number(config, engine)

    assert asyncio.run(asyncio.wait_for(counted(), 60)) == 2


def test_a_task_that_a_transaction_began_waits_for_its_own_turn_when_that_has_ended(tmp_path: Path) -> None:
    async def waited() -> bool:
        config = SqliteInTurn(url(tmp_path))
        async with counter(config) as engine:
            goes_on = asyncio.Event()

            async def later() -> None:
                await goes_on.wait()
                await count(config, engine)

            async with await config.session(engine) as session, config.begin_transaction(session):
                task = asyncio.create_task(later())
            async with await config.session(engine) as session, config.begin_transaction(session):
                goes_on.set()
                await asyncio.wait({task}, timeout=0.5)
                has_waited = not task.done()
            await task
            return has_waited and await number(config, engine) == 1

    assert asyncio.run(asyncio.wait_for(waited(), 60))


def test_whose_turn_does_not_come_goes_on_without(tmp_path: Path) -> None:
    async def counted() -> tuple[int, bool]:
        config = SqliteInTurn(url(tmp_path), patience_s=0.05)
        async with counter(config) as engine:
            await config.turn.acquire()
            await count(config, engine)
            return await number(config, engine), config.turn.locked()

    # It does not give on what it did not have.
    assert asyncio.run(asyncio.wait_for(counted(), 60)) == (1, True)


def test_only_sqlite_is_used_in_turn(tmp_path: Path) -> None:
    before = MODELS_DEPENDENCIES["database_config"]
    with configured(url(tmp_path)):
        assert isinstance(MODELS_DEPENDENCIES["database_config"], SqliteInTurn)
    with configured("postgresql+asyncpg://u:p@127.0.0.1/prefect"):
        assert MODELS_DEPENDENCIES["database_config"] is before
    assert MODELS_DEPENDENCIES["database_config"] is before
