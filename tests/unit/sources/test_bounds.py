"""Local sources that may lie in some folders alone, and every way out of them."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import Category, FileError, SourceNotAllowedError
from app.domain.files import SourceFile
from app.domain.reach import Reach
from app.sources.factory import check_reach, open_source
from app.sources.local import LocalSource


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "root"
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "deep" / "a.json").write_text("{}")
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "root-not"
    folder.mkdir()
    (folder / "secret.json").write_text('{"secret": 1}')
    return folder


def reach_of(inside: Path) -> Reach:
    return Reach((os.fsencode(inside),), (os.fsencode(inside / "own"),))


def opened(inside: Path, path: str | Path, pattern: str | None = None, marker: str | None = None) -> LocalSource:
    found = open_source(
        str(path), file_pattern=pattern, credentials=None, environ={}, reach=reach_of(inside), complete_when=marker
    )
    assert isinstance(found, LocalSource)
    return found


def keys(source: LocalSource) -> list[str]:
    return [file.key for file in source.discover()]


def test_what_lies_within_is_found_and_read(inside: Path) -> None:
    (inside / "in" / "link.json").symlink_to(inside / "in" / "deep" / "a.json")
    (inside / "linked").symlink_to(inside / "in" / "deep")
    source = opened(inside, inside / "linked")
    (file,) = source.discover()
    assert file.key == f"file://{inside}/in/deep/a.json"
    assert pickle.loads(pickle.dumps(source.reader())).read(file) == b"{}"  # noqa: S301 - our own
    assert keys(opened(inside, inside)) == [file.key] * 3
    assert keys(opened(inside, f"{inside}/*/deep/*.json")) == [file.key]


def test_without_roots_there_is_no_local_source(inside: Path) -> None:
    with pytest.raises(SourceNotAllowedError):
        check_reach(str(inside), {}, Reach())


@pytest.mark.parametrize(
    "path",
    [
        "{outside}",
        "{outside}/secret.json",
        "{outside}/*.json",
        "{inside}/../root-not",
        "{inside}/in/../../root-not/secret.json",
        "file://{outside}/secret.json",
        "/proc/self/root/{outside}",
        "/proc/self/cwd",
        "/proc/self/environ",
        "/dev/stdin",
        "/",
        "{inside}/..",
        "{inside}/own",
        "{inside}/own/key",
        "{inside}/out",
        "{inside}/out/secret.json",
        "{inside}/out/*.json",
        "{inside}/out/nothing",
        "{inside}/proc/self/environ",
        "{outside}/nothing",
    ],
)
def test_no_path_leads_out(inside: Path, outside: Path, path: str) -> None:
    (inside / "own").mkdir()
    (inside / "own" / "key").write_text("k")
    (inside / "out").symlink_to(outside)
    (inside / "proc").symlink_to("/proc")
    written = path.format(inside=inside, outside=outside)
    with pytest.raises(SourceNotAllowedError) as caught:
        opened(inside, written)
    with pytest.raises(SourceNotAllowedError):
        check_reach(written, {}, reach_of(inside))
    # Whether there is something is not told, nor where a link leads.
    assert str(caught.value).startswith(caught.value.message)
    assert caught.value.message.endswith(" is not in a folder that this service may read.")
    assert ("root-not" in caught.value.message) is ("root-not" in written)


@pytest.mark.parametrize("kind", ["file", "folder", "of links"])
def test_a_link_that_leads_out_is_refused_when_it_is_come_to(inside: Path, outside: Path, kind: str) -> None:
    target = {"file": outside / "secret.json", "folder": outside, "of links": inside / "hop"}[kind]
    (inside / "hop").symlink_to(outside / "secret.json")
    (inside / "in" / "z.json").symlink_to(target)
    with pytest.raises(SourceNotAllowedError, match=r"in/z\.json is not in a folder") as caught:
        keys(opened(inside, inside / "in"))
    assert "root-not" not in str(caught.value)
    # What is not looked for is no matter.
    assert len(keys(opened(inside, inside / "in", "deep/*.json"))) == 1


def test_a_link_into_proc_is_refused(inside: Path) -> None:
    (inside / "in" / "env.json").symlink_to("/proc/self/environ")
    with pytest.raises(SourceNotAllowedError):
        keys(opened(inside, inside / "in"))


def test_a_marker_outside_completes_nothing(inside: Path, outside: Path) -> None:
    (inside / "in" / "deep" / "_OK").symlink_to(outside / "secret.json")
    assert keys(opened(inside, inside / "in", marker="_OK")) == []


def test_a_link_that_took_a_files_place_is_not_read(inside: Path, outside: Path) -> None:
    source = opened(inside, inside / "in")
    (file,) = source.discover()
    path = inside / "in" / "deep" / "a.json"
    path.unlink()
    path.symlink_to(outside / "secret.json")
    refused(source, file)


def test_a_link_that_took_a_folders_place_is_not_read_through(inside: Path, outside: Path) -> None:
    source = opened(inside, inside / "in")
    (file,) = source.discover()
    # The same name, size and time: the version does not tell them apart.
    twin = outside / "a.json"
    twin.write_text("[]")
    os.utime(twin, ns=(0, (inside / "in/deep/a.json").stat().st_mtime_ns))
    (inside / "in" / "deep").rename(inside / "in" / "was")
    (inside / "in" / "deep").symlink_to(outside)
    error = refused(source, file)
    assert error.category is Category.AUTH
    assert "leads out" in error.message


def refused(source: LocalSource, file: SourceFile) -> FileError:
    for read in (lambda: source.reader().read(file), lambda: list(source.reader().stream(file, 10))):
        with pytest.raises(FileError) as caught:
            read()
    return caught.value


def test_a_link_that_took_a_folders_place_is_not_walked(inside: Path, outside: Path) -> None:
    """Between the look at a folder's name and the look into it."""
    source = opened(inside, inside / "in")

    def swap(below: bytes) -> None:
        if below == b"deep":
            (inside / "in" / "deep").rename(inside / "in" / "was")
            (inside / "in" / "deep").symlink_to(outside)

    found = [sight.file.key for sight in source.sights(on_folder=swap)]
    assert found == []


def test_a_link_that_took_the_place_of_a_folder_above_is_not_walked_through(inside: Path, outside: Path) -> None:
    (inside / "in" / "mid" / "deep").mkdir(parents=True)
    (outside / "deep").mkdir()
    (outside / "deep" / "secret.json").write_text("{}")

    def swap(below: bytes) -> None:
        if below == b"mid/deep":
            (inside / "in" / "mid").rename(inside / "in" / "was")
            (inside / "in" / "mid").symlink_to(outside)

    with pytest.raises(SourceNotAllowedError):
        list(opened(inside, inside / "in", "mid/deep/*").sights(on_folder=swap))


def test_a_name_that_looks_like_a_pattern_leads_out_no_more_than_others(inside: Path, outside: Path) -> None:
    (inside / "in" / "[x].json").symlink_to(outside / "secret.json")
    with pytest.raises(SourceNotAllowedError):
        opened(inside, inside / "in" / "[x].json")
    # And whether there is one outside is not told.
    (outside / "[a].json").write_text("{}")
    messages = []
    for name in ("[a].json", "[b].json"):
        with pytest.raises(SourceNotAllowedError) as caught:
            opened(inside, outside / name)
        messages.append(caught.value.message)
    assert messages[0] == messages[1]


def test_a_folder_that_is_swapped_all_the_time_gives_nothing_away(inside: Path, outside: Path) -> None:
    """Whatever moment the swap hits, no byte of a file outside is read."""
    good, link = inside / "in" / "deep", inside / "in" / "link"
    twin = outside / "a.json"
    twin.write_text("[]")
    os.utime(twin, ns=(0, (good / "a.json").stat().st_mtime_ns))
    link.symlink_to(outside)
    spare, ended = inside / "in" / "spare", threading.Event()

    def swap() -> None:
        while not ended.is_set():
            good.rename(spare)
            link.rename(good)
            good.rename(link)
            spare.rename(good)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            for data in attempts(inside):
                assert data == b"{}"
    finally:
        ended.set()
        thread.join()


def attempts(inside: Path) -> Iterator[bytes]:
    try:
        source = opened(inside, inside / "in", "deep/*.json")
        for file in source.discover():
            yield source.reader().read(file)
    except (SourceNotAllowedError, FileError):
        pass
