"""Local folders: links, odd files, what may not be read, and reads that refuse another file."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.errors import Category, FileError, InvalidFieldError, SourceAuthError, SourceNotFoundError
from app.domain.files import SourceFile
from app.sources import open_source
from app.sources.local import LocalSource

NOBODY = 65534


def _source(path: object, pattern: str | None = None) -> LocalSource:
    source = open_source(str(path), file_pattern=pattern, credentials=None, environ={})
    assert isinstance(source, LocalSource)
    return source


def _names(path: object, pattern: str | None = None, *, root: Path) -> list[str]:
    return [file.key.removeprefix(f"file://{root}/") for file in _source(path, pattern).discover()]


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """The rights of nobody, so that a folder can refuse us."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)


def test_a_version_is_size_and_time(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    os.utime(tmp_path / "a", ns=(0, 1_700_000_000_123_456_789))
    (file,) = _source(tmp_path).discover()
    assert file == SourceFile(
        f"file://{tmp_path}/a", "1-1700000000123456789", 1, datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
    )


def test_a_file_before_1970(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    os.utime(tmp_path / "a", ns=(0, -1_500_000_000))
    (file,) = _source(tmp_path).discover()
    assert file.modified_at == datetime(1969, 12, 31, 23, 59, 58, 500000, UTC)


def test_a_relative_path_starts_from_the_folder_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "data/a.csv", "data/x/b.csv")
    monkeypatch.chdir(tmp_path)
    assert _names("data", root=tmp_path) == ["data/a.csv", "data/x/b.csv"]
    assert _names("./data/*.csv", root=tmp_path) == ["data/a.csv"]
    assert _names("data/x/../*.csv", root=tmp_path) == ["data/a.csv"]


def test_a_pattern_in_the_path_and_one_beside_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="file_pattern"):
        _source(f"{tmp_path}/*.csv", "*.json")
    with pytest.raises(InvalidFieldError, match="credentials"):
        open_source(str(tmp_path), file_pattern=None, credentials={"aws_region": "x"}, environ={})


def test_files_are_known_by_their_real_path(tmp_path: Path) -> None:
    _write(tmp_path, "real/a", "elsewhere/b")
    (tmp_path / "real" / "link").symlink_to(tmp_path / "elsewhere" / "b")
    (tmp_path / "other").symlink_to(tmp_path / "real")
    assert _names(tmp_path / "other", root=tmp_path) == ["real/a", "elsewhere/b"]
    assert _source(tmp_path / "other").root == f"file://{tmp_path}/real"


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    _write(tmp_path, "in/a", "out/b")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "out").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in" / "self")
    (tmp_path / "in" / "nowhere").symlink_to(tmp_path / "nothing")
    keys = {file.key for file in _source(tmp_path / "in").discover()}
    assert keys == {f"file://{tmp_path}/in/a", f"file://{tmp_path}/out/b"}


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert _names(tmp_path, root=tmp_path) == ["a"]
    with pytest.raises(SourceNotFoundError, match="neither"):
        _names(tmp_path / "pipe", root=tmp_path)


@pytest.mark.usefixtures("unprivileged")
def test_a_folder_that_may_not_be_read_is_never_left_out_silently() -> None:
    folder = Path("/tmp") / f"autoloader-{os.getpid()}-{os.geteuid()}"  # noqa: S108  # nobody may not enter tmp_path
    _write(folder, "a/x", "b/x")
    (folder / "b").chmod(0)
    try:
        with pytest.raises(SourceAuthError, match=f"{folder}/b may not be read"):
            _names(folder, root=folder)
        # What cannot match below it is not missed.
        assert _names(folder, "a/*", root=folder) == ["a/x"]
        assert _names(folder, "./*", root=folder) == []
    finally:
        (folder / "b").chmod(0o700)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def test_a_folder_that_vanishes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, "a", "b/x", "c/x", "d")
    files = _source(tmp_path).discover()
    assert next(files).key.endswith("/a")
    (tmp_path / "b" / "x").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "d").unlink()
    assert [file.key.removeprefix(f"file://{tmp_path}/") for file in files] == ["c/x"]


def test_a_name_that_is_not_utf_8_is_found_read_and_named(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9\\.json"
    Path(os.fsdecode(path)).write_bytes(b"1")
    source = _source(tmp_path, "caf?*.json")
    (file,) = source.discover()
    assert file.key == f"file://{tmp_path}/caf\\xe9\\\\.json"
    assert source.reader().read(file) == b"1"
    # What is shown can be given back as a source.
    (again,) = _source(file.key).discover()
    assert again == file


def test_a_walk_holds_no_more_than_a_folder_a_level(tmp_path: Path) -> None:
    _write(tmp_path, *(f"{n}/{m}" for n in range(5) for m in range(5)))
    files = _source(tmp_path).discover()
    next(files)
    # A folder that was not entered yet is seen as it is when it is entered.
    _write(tmp_path, "4/late")
    assert f"file://{tmp_path}/4/late" in {file.key for file in files}


def test_a_deep_tree_is_walked(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 900)
    folder = tmp_path
    for part in deep.split("/"):
        folder = folder / part
        folder.mkdir()
    (folder / "x").write_text("1")
    assert _names(tmp_path, root=tmp_path) == [f"{deep}/x"]


def _refused(source: LocalSource, file: SourceFile) -> FileError:
    with pytest.raises(FileError) as refused:
        source.reader().read(file)
    return refused.value


def test_a_file_of_the_same_size_and_another_time_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    source = _source(tmp_path)
    (file,) = source.discover()
    os.utime(tmp_path / "a", ns=(0, 1))
    assert _refused(source, file).category is Category.PATH_NOT_FOUND


def test_what_took_a_file_s_name_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a", "b")
    source = _source(tmp_path)
    pipe, folder = source.discover()
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    assert _refused(source, pipe).category is Category.PATH_NOT_FOUND
    assert _refused(source, folder).category is Category.PATH_NOT_FOUND


def test_a_file_that_is_replaced_while_it_is_read_is_still_the_one_that_was_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    source = _source(tmp_path)
    (file,) = source.discover()
    pieces = source.reader().stream(file, 4)
    assert next(pieces) == b"0123"
    (tmp_path / "new").write_bytes(b"ABCDEFGHIJ")
    (tmp_path / "new").rename(tmp_path / "a")
    assert b"".join(pieces) == b"456789"


def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    source = _source(tmp_path)
    (file,) = source.discover()
    pieces = source.reader().stream(file, 4)
    next(pieces)
    os.truncate(tmp_path / "a", 6)
    with pytest.raises(FileError, match="changed"):
        list(pieces)


@pytest.mark.usefixtures("unprivileged")
def test_a_file_that_may_not_be_read_fails_alone() -> None:
    file = SourceFile("file:///etc/shadow", "1-1", 1, datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(FileError, match="may not be read") as refused:
        LocalSource.reader(_source("/etc")).read(file)
    assert refused.value.category is Category.AUTH
