"""A large file that changes while several children read it: never a mixture of its versions, from disk and from S3."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.errors import Category
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading, Source, WriteOrder, WriteResult
from app.domain.types import LONG, Field
from app.engines.embedded.engine import EmbeddedEngine
from app.sources.factory import open_source
from tests.fakes.catalog import FolderSink
from tests.support.seaweed import Seaweed
from tests.support.stamps import put_anew, stamp_of
from tests.support.tables import table_schema, written_rows

SCHEMA = table_schema(Field("version", LONG), Field("number", LONG))
ROWS = 20_000


def version(number: int) -> bytes:
    """All versions are of one size, and every row says which one it is of."""
    return b"".join(b'{"version": %d, "number": %6d}\n' % (number, i) for i in range(ROWS))


@dataclass
class Place:
    """Where the file is."""

    source: Source
    put: Callable[[bytes], None]


def written(path: Path, data: bytes) -> str:
    """What a listing takes for its version then."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(data)
    return stamp_of(path)


def overwritten(path: Path) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        put_anew(lambda: written(path, data), [stamp_of(path)] if path.exists() else [])

    return put


def replaced(path: Path) -> Callable[[bytes], None]:
    new = path.with_name(".new")

    def put(data: bytes) -> None:
        put_anew(lambda: written(new, data), [stamp_of(path)] if path.exists() else [])
        new.replace(path)

    return put


@pytest.fixture(params=["overwritten", "replaced", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "s3":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        bucket = seaweed.create_bucket(f"changing-{os.getpid()}")
        source = open_source(f"s3://{bucket}/in/", file_pattern=None, credentials=seaweed.credentials, environ={})
        return Place(source, lambda data: seaweed.put(bucket, {"in/big.json": data}))
    (tmp_path / "in").mkdir()
    source = open_source(f"{tmp_path}/in", file_pattern=None, credentials=None, environ={})
    path = tmp_path / "in" / "big.json"
    return Place(source, (overwritten if request.param == "overwritten" else replaced)(path))


@pytest.fixture
def engine() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(processes=2, span_bytes=64 * 1024)
    yield engine
    engine.close()


class Changes:
    """Puts another version in the place of the file once some of it was read; nothing more is asked for meanwhile."""

    def __init__(self, change: Callable[[], None]) -> None:
        self._change = change
        self._lock = threading.Lock()
        self._done = False

    def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        del files, rows
        with self._lock:
            if stored_bytes and not self._done:
                self._done = True
                self._change()


def load(engine: EmbeddedEngine, place: Place, folder: Path, change: Callable[[], None]) -> WriteResult:
    (file,) = place.source.discover()
    reading = Reading(place.source.reader(), FormatOptions(FileFormat.JSON))
    order = WriteOrder((file,), reading, SCHEMA, FolderSink(str(folder)), "b-1", "t")
    return engine.write(order, Changes(change))


def test_a_file_that_changes_while_it_is_read_is_left_out_and_then_loaded_whole(
    engine: EmbeddedEngine, place: Place, tmp_path: Path
) -> None:
    place.put(version(1))
    before = discovered(place)

    result = load(engine, place, tmp_path / "first", lambda: place.put(version(2)))

    assert [(f.key, f.version, f.category) for f in result.failed] == [
        (before.key, before.version, Category.PATH_NOT_FOUND)
    ]
    assert (result.loaded, result.data_files, list((tmp_path / "first").glob("*"))) == ((), (), [])

    again = load(engine, place, tmp_path / "second", lambda: None)
    assert [(f.version != before.version, f.rows) for f in again.loaded] == [(True, ROWS)]
    assert [(r["version"], r["number"]) for r in written_rows(again)] == [(2, i) for i in range(ROWS)]
    assert len(again.data_files) > 1


def discovered(place: Place) -> SourceFile:
    (file,) = place.source.discover()
    return file
