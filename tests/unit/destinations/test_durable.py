from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.io import load_file_io

from app.destinations.configured import SYNCED_IO
from app.destinations.durable import LocalFile, SyncedFileIO


@pytest.fixture
def io() -> SyncedFileIO:
    made = load_file_io({"py-io-impl": SYNCED_IO})
    assert isinstance(made, SyncedFileIO)
    return made


@pytest.mark.parametrize("spelling", ["{}", "file://{}"])
def test_a_file_is_written_and_read_back(io: SyncedFileIO, tmp_path: Path, spelling: str) -> None:
    location = spelling.format(tmp_path / "a b" / "é-1.avro")
    out = io.new_output(location)
    assert not out.exists()
    with out.create() as stream:
        stream.write(b"some ")
        stream.write(b"bytes")
    found = out.to_input_file()
    assert (found.location, found.exists(), len(found)) == (location, True, 10)
    with io.new_input(location).open() as stream:
        assert stream.read(4) == b"some"
        assert stream.seek(5) == 5
        assert stream.read() == b"bytes"
    assert [path.name for path in (tmp_path / "a b").iterdir()] == ["é-1.avro"]


def test_only_who_says_so_overwrites(io: SyncedFileIO, tmp_path: Path) -> None:
    out = io.new_output(str(tmp_path / "a"))
    with out.create() as stream:
        stream.write(b"first")
    with pytest.raises(FileExistsError):
        out.create()
    with out.create(overwrite=True) as stream:
        stream.write(b"2nd")
    assert (tmp_path / "a").read_bytes() == b"2nd"


def test_what_is_not_there_is_not_found(io: SyncedFileIO, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        io.new_input(missing).open()
    with pytest.raises(FileNotFoundError):
        io.delete(missing)


def test_a_file_is_removed_by_its_name_or_by_itself(io: SyncedFileIO, tmp_path: Path) -> None:
    for name in ("by-name", "by-itself"):
        (tmp_path / name).touch()
    io.delete(f"file://{tmp_path}/by-name")
    io.delete(io.new_input(str(tmp_path / "by-itself")))
    assert list(tmp_path.iterdir()) == []


def test_what_lies_elsewhere_is_left_to_pyiceberg(io: SyncedFileIO) -> None:
    for file in (io.new_input("s3://bucket/key"), io.new_output("s3://bucket/key")):
        assert not isinstance(file, LocalFile)
        assert isinstance(vars(file)["_filesystem"], pyarrow.fs.S3FileSystem)


def test_pyiceberg_writes_reads_and_deletes_through_it(tmp_path: Path) -> None:
    """As another program does that has the built-in catalog's table open."""
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": str(tmp_path)}
    with load_catalog("other", **properties, **{"py-io-impl": SYNCED_IO}) as catalog:
        catalog.create_namespace("db")
        rows = pa.table({"id": list(range(2_000)), "name": [f"n{i}" for i in range(2_000)]})
        table = catalog.create_table("db.events", rows.schema)
        table.append(rows)
        table.append(rows.slice(0, 10))
        table.delete("id < 5")
        found = catalog.load_table("db.events").scan(row_filter="id < 100").to_arrow()
        assert isinstance(table.io, SyncedFileIO)
    assert sorted(found["id"].to_pylist()) == sorted([*range(5, 100), *range(5, 10)])
    assert found["name"].to_pylist()[0].startswith("n")
