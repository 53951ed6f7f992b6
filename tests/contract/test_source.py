"""What every source promises, held against local folders, servers of each kind of store and the fake alike."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.domain.errors import Category, FileError, SourceNotFoundError
from app.domain.files import SourceFile
from app.domain.patterns import Pattern, file_pattern
from app.domain.ports import Source, SourceReader
from app.sources.factory import open_source
from tests.fakes.source import MemorySource
from tests.support.azurite import Azurite
from tests.support.fake_gcs import FakeGcs
from tests.support.seaweed import Seaweed
from tests.support.stamps import put_anew, stamp_of

MARKER_SUFFIX = "/"


@dataclass
class Place:
    """Somewhere files can be put, and a source opened on it."""

    root: str
    put: Callable[[str, bytes], None]
    delete: Callable[[str], None]
    # Takes a path, a pattern, and the name of what makes a folder complete.
    open: Callable[[str, str | None, str | None], Source]

    def names(self, path: str = "", pattern: str | None = None, complete_when: str | None = None) -> list[str]:
        """What a source finds, below the place's root, sorted."""
        source = self.open(path, pattern, complete_when)
        return sorted(file.key.removeprefix(f"{self.root}/") for file in source.discover())

    def one(self, path: str = "") -> tuple[SourceFile, SourceReader]:
        """The only file, and a reader."""
        source = self.open(path, None, None)
        (file,) = source.discover()
        return file, source.reader()


def _local(folder: Path) -> Place:
    def put(name: str, data: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(MARKER_SUFFIX):
            path.mkdir(exist_ok=True)
        else:
            put_anew(lambda: written(path, data), [stamp_of(path)] if path.exists() else [])

    def written(path: Path, data: bytes) -> str:
        path.write_bytes(data)
        return stamp_of(path)

    def open_(path: str, pattern: str | None, complete_when: str | None) -> Source:
        return open_source(
            f"{folder}/{path}", file_pattern=pattern, credentials=None, environ={}, complete_when=complete_when
        )

    return Place(f"file://{os.path.realpath(folder)}", put, lambda name: (folder / name).unlink(), open_)


def _store(server: Seaweed | Azurite | FakeGcs, scheme: str, bucket: str, folder: str) -> Place:
    root = f"{scheme}://{bucket}/{folder}"
    server.put(bucket, {f"{folder}/": b""})

    def open_(path: str, pattern: str | None, complete_when: str | None) -> Source:
        return open_source(
            f"{root}/{path}",
            file_pattern=pattern,
            credentials=server.credentials,
            environ={},
            complete_when=complete_when,
        )

    return Place(
        root,
        lambda name, data: server.put(bucket, {f"{folder}/{name}": data}),
        lambda name: server.store(bucket).delete(f"{folder}/{name}"),
        open_,
    )


def _memory() -> Place:
    memory = MemorySource()

    def open_(path: str, pattern: str | None, complete_when: str | None) -> Source:
        # Only stores tell apart what exists as it is written; here a pattern is given apart.
        wanted: Pattern | None = file_pattern(pattern) if pattern else None
        return replace(memory, folder=path.rstrip("/"), pattern=wanted, marker=complete_when)

    return Place("s3://memory", lambda name, data: _drop(memory.put(name, data)), memory.delete, open_)


def _drop(_file: SourceFile) -> None:
    """The fake gives the file back; the places do not."""


# Kind → the fixture of its server, and the scheme of its keys.
STORES = {"s3": ("seaweed", "s3"), "azure_blob": ("azurite", "az"), "gcs": ("fake_gcs", "gs")}


@pytest.fixture(scope="module")
def buckets() -> dict[str, str]:
    """One bucket in each server for all: making one takes longer than a test."""
    return {}


@pytest.fixture(params=["local", *STORES, "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, buckets: dict[str, str]) -> Place:
    if request.param == "local":
        folder = tmp_path / "place"
        folder.mkdir()
        return _local(folder)
    if request.param in STORES:
        name, scheme = STORES[request.param]
        server = request.getfixturevalue(name)
        if name not in buckets:
            buckets[name] = server.create_bucket(f"contract-{os.getpid()}")
        return _store(server, scheme, buckets[name], f"place-{uuid.uuid4().hex}")
    return _memory()


@pytest.fixture
def tree(place: Place) -> Place:
    """A place with a handful of files."""
    for name in ("a.json", "b.csv", "d/a.json", "d/e/a.json", "_hidden.json", "_t/a.json", "d/.x/a.json"):
        place.put(name, name.encode())
    return place


def test_everything_is_found_but_what_is_hidden(tree: Place) -> None:
    assert tree.names() == ["a.json", "b.csv", "d/a.json", "d/e/a.json"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.json", ["a.json", "d/a.json", "d/e/a.json"]),
        ("./*.json", ["a.json"]),
        ("d/*.json", ["d/a.json"]),
        ("d/**", ["d/a.json", "d/e/a.json"]),
        ("**/e/*", ["d/e/a.json"]),
        ("{a,b}.*", ["a.json", "b.csv", "d/a.json", "d/e/a.json"]),
        ("[!a].csv", ["b.csv"]),
        ("?.CSV", []),
        ("_*.json", ["_hidden.json"]),
        ("_t/*", ["_t/a.json"]),
        ("nowhere/*", []),
    ],
)
def test_a_pattern_chooses(tree: Place, pattern: str, names: list[str]) -> None:
    assert tree.names(pattern=pattern) == names


@pytest.mark.parametrize("path", ["d", "d/"])
def test_a_folder_holds_what_is_below_it(tree: Place, path: str) -> None:
    tree.put("d2/x.json", b"")
    assert tree.names(path) == ["d/a.json", "d/e/a.json"]
    assert tree.names(path, "./*.json") == ["d/a.json"]


def test_a_hidden_folder_that_is_named_is_no_longer_hidden(tree: Place) -> None:
    assert tree.names("_t") == ["_t/a.json"]


def test_a_single_file(tree: Place) -> None:
    file, reader = tree.one("d/e/a.json")
    assert file.key == f"{tree.root}/d/e/a.json"
    assert file.size_bytes == 10
    assert reader.read(file) == b"d/e/a.json"


def test_every_key_lies_below_the_root(tree: Place) -> None:
    source = tree.open("d/", None, None)
    assert source.root == f"{tree.root}/d"
    assert all(file.key.startswith(f"{source.root}/") for file in source.discover())


def test_whether_files_of_a_folder_could_be_found(tree: Place) -> None:
    assert tree.open("d", None, None).can_find_below(f"{tree.root}/d/warehouse")
    assert not tree.open("d", "./*.json", None).can_find_below(f"{tree.root}/d/warehouse")
    assert not tree.open("d", None, None).can_find_below(f"{tree.root}/warehouse")


@pytest.mark.parametrize("path", ["nowhere", "nowhere/", "d/nowhere.json", "a.json/"])
def test_a_path_where_nothing_is_fails(tree: Place, path: str) -> None:
    if path == "a.json/" and tree.root == "s3://memory":
        path = "nowhere/"
    with pytest.raises(SourceNotFoundError):
        tree.names(path)


def test_empty_files_are_found_and_folder_markers_are_not(place: Place) -> None:
    place.put("empty.json", b"")
    place.put("folder/", b"")
    place.put("folder2/", b"")
    place.put("folder2/empty", b"")
    assert place.names() == ["empty.json", "folder2/empty"]


def test_an_empty_folder_has_no_files(place: Place) -> None:
    assert place.names() == []
    place.put("folder/", b"")
    assert place.names("folder/") == []


def test_times_are_aware(tree: Place) -> None:
    offsets = {file.modified_at.utcoffset() for file in tree.open("", None, None).discover()}
    assert {str(offset) for offset in offsets} == {"0:00:00"}


def test_a_version_stays_and_changes_with_the_content(place: Place) -> None:
    place.put("a", b"1")
    first, _ = place.one()
    again, _ = place.one()
    place.put("a", b"22")
    second, _ = place.one()
    assert first == again
    assert first.version != second.version


NAMES = [
    "per%25cent%.json",
    "hash#a.json",
    "question?.json",
    "sp ace.json",
    "pl+us.json",
    "am&p;<.json",
    "quo'te\".json",
    "é.json",
    "\uffee.json",
    "\U0001f600.json",
    "e\u0301.json",
    "[x]*{a}.json",
    "colon:@=,.json",
    "~tilde.json",
]


def test_any_name_is_found_and_read(place: Place) -> None:
    for name in NAMES:
        place.put(name, name.encode())
    source = place.open("", None, None)
    reader = source.reader()
    assert {file.key: reader.read(file) for file in source.discover()} == {
        f"{place.root}/{name}": name.encode() for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_exists_is_taken_as_it_is(place: Place, name: str) -> None:
    place.put(name, b"1")
    place.put("x", b"1")
    assert place.names(name) == [name]


def test_a_range_is_exact(place: Place) -> None:
    data = bytes(range(256)) * 40_000
    place.put("big.bin", data)
    file, reader = place.one()
    assert reader.read(file) == data
    assert reader.read(file, 5_000_000, 9_000_001) == data[5_000_000:9_000_001]
    assert reader.read(file, 9_000_000) == data[9_000_000:]
    assert reader.read(file, 10, 10) == b""
    assert reader.read(file, len(data) - 1, len(data) + 100) == data[-1:]
    assert reader.read(file, len(data) + 5) == b""


@pytest.mark.parametrize("chunk_bytes", [1, 1_000, 65_536, 1_000_000])
def test_a_stream_is_the_file(place: Place, chunk_bytes: int) -> None:
    data = bytes(range(250)) * max(1, min(chunk_bytes, 4_000) // 100)
    place.put("a.bin", data)
    file, reader = place.one()
    pieces = list(reader.stream(file, chunk_bytes)) if chunk_bytes > 1 else list(reader.stream(file, 50))
    assert b"".join(pieces) == data


def test_an_empty_file_is_read(place: Place) -> None:
    place.put("empty", b"")
    file, reader = place.one()
    assert reader.read(file) == b""
    assert b"".join(reader.stream(file, 10)) == b""


def test_a_reader_travels(place: Place) -> None:
    place.put("a", b"content")
    file, reader = place.one()
    assert pickle.loads(pickle.dumps(reader)).read(file) == b"content"  # noqa: S301


def _assert_refused(read: Callable[[], object]) -> None:
    with pytest.raises(FileError) as refused:
        read()
    assert refused.value.category is Category.PATH_NOT_FOUND


@pytest.mark.parametrize("content", [b"new content", b"old", b""], ids=["longer", "as-long", "empty"])
def test_a_changed_file_is_refused(place: Place, content: bytes) -> None:
    place.put("a", b"was")
    file, reader = place.one()
    place.put("a", content)
    _assert_refused(lambda: reader.read(file))
    _assert_refused(lambda: reader.read(file, 0, 1))
    _assert_refused(lambda: reader.read(file, 1, 1))
    _assert_refused(lambda: list(reader.stream(file, 2)))


def test_a_file_that_was_empty_and_is_not_is_refused(place: Place) -> None:
    place.put("a", b"")
    file, reader = place.one()
    place.put("a", b"1")
    _assert_refused(lambda: reader.read(file))
    _assert_refused(lambda: list(reader.stream(file, 2)))


def test_a_file_that_is_gone_is_refused(place: Place) -> None:
    place.put("a", b"was")
    file, reader = place.one()
    place.delete("a")
    _assert_refused(lambda: reader.read(file))
    _assert_refused(lambda: list(reader.stream(file, 2)))


def test_a_change_in_the_middle_of_a_stream_is_refused(place: Place) -> None:
    place.put("a", b"0123456789")
    file, reader = place.one()
    pieces = reader.stream(file, 4)
    assert next(pieces) == b"0123"
    place.put("a", b"ABCDEFGHIJ")
    _assert_refused(lambda: list(pieces))


def test_a_folder_without_its_marker_is_left_until_it_stands_there(place: Place) -> None:
    for name in ("a.json", "d/a.json", "d/Z.json", "d/z.json", "d/e/a.json", "d/e/_SUCCESS"):
        place.put(name, name.encode())
    assert place.names(complete_when="_SUCCESS") == ["d/e/a.json"]
    place.put("d/_SUCCESS", b"")
    assert place.names(complete_when="_SUCCESS") == ["d/Z.json", "d/a.json", "d/e/a.json", "d/z.json"]
    place.put("_SUCCESS", b"")
    assert place.names(complete_when="_SUCCESS", pattern="a.json") == ["a.json", "d/a.json", "d/e/a.json"]
    place.delete("d/_SUCCESS")
    assert place.names(complete_when="_SUCCESS") == ["a.json", "d/e/a.json"]


def test_a_marker_is_no_file_also_when_its_name_is_not_hidden(place: Place) -> None:
    for name in ("a.json", "done.json", "d/done.json", "e/a.json"):
        place.put(name, name.encode())
    assert place.names() == ["a.json", "d/done.json", "done.json", "e/a.json"]
    assert place.names(complete_when="done.json") == ["a.json"]


def test_a_single_file_waits_for_the_marker_beside_it(place: Place) -> None:
    place.put("d/a.json", b"{}")
    assert place.names("d/a.json", complete_when="ready") == []
    place.put("d/ready", b"")
    assert place.names("d/a.json", complete_when="ready") == ["d/a.json"]
    assert place.names("d/ready", complete_when="ready") == []
