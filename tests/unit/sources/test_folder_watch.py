"""A folder that is watched: real files, the kernel's real news. No wait here is for a time, only for an event."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.domain.errors import SourceNotFoundError
from app.sources.factory import open_lookout, open_source
from app.sources.folder_watch import HEARD_FILES, OPEN_PATIENCE_S, FolderWatch
from app.sources.inotify import Inotify
from app.sources.local import LocalSource
from app.sources.settling import Moment

# Long enough for any machine, and never waited out by a test that passes.
LONG_S = 60.0
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


@dataclass
class Landing:
    """A folder, and what is noticed of it. Files are taken at once unless a moment is given."""

    folder: Path
    pattern: str | None = None
    moment: Moment = field(default_factory=lambda: Moment(0.0))
    complete_when: str | None = None
    notes: list[str] = field(default_factory=list)
    clock: float = 0.0

    def source(self) -> LocalSource:
        source = open_source(
            str(self.folder),
            file_pattern=self.pattern,
            credentials=None,
            environ={},
            moment=self.moment,
            complete_when=self.complete_when,
        )
        assert isinstance(source, LocalSource)
        return source

    def watch(self, open_inotify: Callable[[], Inotify] = Inotify, shared: bool = False) -> FolderWatch:  # noqa: FBT001, FBT002
        return FolderWatch(
            self.source(),
            self.notes.append,
            open_inotify=open_inotify,
            shared=lambda _: shared,
            clock=lambda: self.clock,
        )

    def names(self, lookout: FolderWatch) -> list[str]:
        return [self._name(file.key) for file in lookout.everything()]

    def heard(self, lookout: FolderWatch, *, count: int) -> list[str]:
        """What is heard of, once it is so many files."""
        found: set[str] = set()
        while len(found) < count:
            assert lookout.wait(LONG_S), f"only {found} were heard of"
            landed = lookout.landed()
            assert landed is not None
            found |= {self._name(file.key) for file in landed}
        return sorted(found)

    def _name(self, key: str) -> str:
        return key.removeprefix(f"file://{self.folder.resolve()}/")

    def write(self, name: str, text: str = "{}") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    folder = tmp_path / "landing"
    folder.mkdir()
    return Landing(folder)


@pytest.fixture
def lookout(landing: Landing) -> Iterator[FolderWatch]:
    watch = landing.watch()
    assert landing.names(watch) == []
    yield watch
    watch.close()


def test_what_is_there_is_seen_and_what_lands_is_heard_of(landing: Landing) -> None:
    landing.write("old.json")
    watch = landing.watch()
    assert landing.names(watch) == ["old.json"]
    landing.write("new.json")
    assert landing.heard(watch, count=1) == ["new.json"]
    assert not watch.wait(0)
    watch.close()


def test_silence_is_not_news(lookout: FolderWatch) -> None:
    assert not lookout.wait(0)
    assert list(lookout.landed() or ["lost"]) == []


def test_names_that_are_not_looked_for_are_no_news(landing: Landing) -> None:
    landing.pattern = "*.json"
    watch = landing.watch()
    landing.names(watch)
    for name in ("a.csv", ".hidden.json", "_temporary/a.json"):
        landing.write(name)
    assert not watch.wait(0)
    (landing.folder / "a.csv").rename(landing.folder / "a.json")
    assert landing.heard(watch, count=1) == ["a.json"]


def test_a_name_that_is_no_text_is_heard_of_too(landing: Landing, lookout: FolderWatch) -> None:
    Path(os.fsdecode(os.fsencode(landing.folder) + b"/\xff.json")).write_text("{}")
    assert landing.heard(lookout, count=1) == ["\\xff.json"]
    landing.write("next.json")
    assert landing.heard(lookout, count=1) == ["next.json"]


def test_files_that_are_renamed_into_the_folder_are_heard_of(landing: Landing, lookout: FolderWatch) -> None:
    outside = landing.folder.parent / "outside.json"
    outside.write_text("{}")
    outside.rename(landing.folder / "in.json")
    landing.write(".part").rename(landing.folder / "whole.json")
    assert landing.heard(lookout, count=2) == ["in.json", "whole.json"]


def test_a_new_folder_is_read_whatever_landed_in_it_before_it_was_watched(
    landing: Landing, lookout: FolderWatch
) -> None:
    landing.write("a/b/early.json")
    assert landing.heard(lookout, count=1) == ["a/b/early.json"]
    landing.write("a/b/late.json")
    assert landing.heard(lookout, count=1) == ["a/b/late.json"]


def test_a_folder_with_files_that_moves_in_out_and_back(landing: Landing, lookout: FolderWatch) -> None:
    outside = landing.folder.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "a.json").write_text("{}")
    outside.rename(landing.folder / "in")
    assert landing.heard(lookout, count=1) == ["in/deep/a.json"]
    (landing.folder / "in").rename(outside)
    # What happens to it out there is no news.
    (outside / "deep" / "b.json").write_text("{}")
    lookout.wait(0)
    assert list(lookout.landed() or ["lost"]) == []
    outside.rename(landing.folder / "back")
    assert landing.heard(lookout, count=2) == ["back/deep/a.json", "back/deep/b.json"]
    landing.write("back/deep/c.json")
    assert landing.heard(lookout, count=1) == ["back/deep/c.json"]


def test_a_folder_that_is_deleted_and_comes_back(landing: Landing, lookout: FolderWatch) -> None:
    landing.write("a/x.json")
    assert landing.heard(lookout, count=1) == ["a/x.json"]
    (landing.folder / "a" / "x.json").unlink()
    (landing.folder / "a").rmdir()
    landing.write("a/y.json")
    assert landing.heard(lookout, count=1) == ["a/y.json"]
    landing.write("a/z.json")
    assert landing.heard(lookout, count=1) == ["a/z.json"]


def test_the_root_that_is_deleted_and_comes_back_is_watched_from_the_next_look_on(
    landing: Landing, lookout: FolderWatch
) -> None:
    landing.folder.rmdir()
    assert lookout.wait(LONG_S)
    assert lookout.landed() is None
    with pytest.raises(SourceNotFoundError):
        landing.names(lookout)
    landing.write("a.json")
    assert landing.names(lookout) == ["a.json"]
    landing.write("b.json")
    assert landing.heard(lookout, count=1) == ["b.json"]


def test_another_folder_in_the_place_of_the_root(landing: Landing, lookout: FolderWatch) -> None:
    landing.folder.rename(landing.folder.parent / "old")
    landing.write("a.json")
    assert lookout.wait(LONG_S)
    assert lookout.landed() is None
    assert landing.names(lookout) == ["a.json"]
    (landing.folder.parent / "old" / "b.json").write_text("{}")
    landing.write("c.json")
    assert landing.heard(lookout, count=1) == ["c.json"]


def test_links_to_folders_are_watched_where_they_lead(landing: Landing, lookout: FolderWatch) -> None:
    target, other = landing.folder.parent / "v1", landing.folder.parent / "v2"
    for folder in (target, other):
        folder.mkdir()
        (folder / "a.json").write_text("{}")
    link = landing.folder / "current"
    link.symlink_to(target)
    key = f"file://{target.resolve()}/a.json"
    assert landing.heard(lookout, count=1) == [key]
    (target / "b.json").write_text("{}")
    assert landing.heard(lookout, count=1) == [key.replace("a.json", "b.json")]
    # As a release is switched: the link is replaced by another one in one step.
    new = landing.folder / ".next"
    new.symlink_to(other)
    new.rename(link)
    assert landing.heard(lookout, count=1) == [f"file://{other.resolve()}/a.json"]
    (target / "c.json").write_text("{}")
    (other / "c.json").write_text("{}")
    assert landing.heard(lookout, count=1) == [f"file://{other.resolve()}/c.json"]


def test_a_link_into_a_folder_above_it_is_not_entered(landing: Landing, lookout: FolderWatch) -> None:
    landing.write("a.json")
    assert landing.heard(lookout, count=1) == ["a.json"]
    (landing.folder / "loop").symlink_to(landing.folder)
    assert lookout.wait(LONG_S)
    assert list(lookout.landed() or ["lost"]) == []


def test_a_root_that_is_a_link(landing: Landing) -> None:
    link = landing.folder.parent / "link"
    link.symlink_to(landing.folder)
    watch = Landing(link).watch()
    landing.names(watch)
    landing.write("d/a.json")
    assert landing.heard(watch, count=1) == ["d/a.json"]


def test_a_folder_of_a_pattern_that_does_not_exist_yet(landing: Landing) -> None:
    landing.pattern = "2026/03/*.json"
    watch = landing.watch()
    assert landing.names(watch) == []
    landing.write("2025/03/a.json")
    landing.write("2026/03/b.json")
    assert landing.heard(watch, count=1) == ["2026/03/b.json"]


# --- what is not whole ---------------------------------------------------------------------------------------------


def test_a_file_that_is_held_open_is_left_until_it_is_closed(landing: Landing, lookout: FolderWatch) -> None:
    with (landing.folder / "slow.json").open("w") as file:
        file.write("{")
        file.flush()
        assert not lookout.wait(0)
        # A look at everything leaves it too, however long it has stood still.
        assert landing.names(lookout) == []
        file.write("}")
    assert landing.heard(lookout, count=1) == ["slow.json"]


def test_a_file_that_nobody_ever_closes_is_taken_when_it_stood_still_for_long(landing: Landing) -> None:
    now = [0.0]
    landing.moment = Moment(0.0, now_s=lambda: now[0])
    watch = landing.watch()
    landing.names(watch)
    with (landing.folder / "log.json").open("w") as file:
        file.write("{}\n")
        file.flush()
        assert not watch.wait(0)
        landing.clock = OPEN_PATIENCE_S
        now[0] = (landing.folder / "log.json").stat().st_mtime + OPEN_PATIENCE_S - 1
        assert watch.wait(0)
        assert list(watch.landed() or ["lost"]) == []
        landing.clock += 1
        assert landing.heard(watch, count=1) == ["log.json"]


def test_a_second_name_for_a_file_has_nobody_who_closes_it(landing: Landing, lookout: FolderWatch) -> None:
    outside = landing.folder.parent / "outside.json"
    outside.write_text("{}")
    (landing.folder / "hard.json").hardlink_to(outside)
    (landing.folder / "soft.json").symlink_to(outside)
    found = landing.heard(lookout, count=2)
    assert found == sorted(["hard.json", f"file://{outside.resolve()}"])


def test_a_young_file_is_taken_when_it_stood_still_for_its_moment(landing: Landing) -> None:
    now = [0.0]
    landing.moment = Moment(10.0, now_s=lambda: now[0])
    watch = landing.watch()
    path = landing.write("a.json")
    now[0] = path.stat().st_mtime + 4
    assert landing.names(watch) == []
    assert not watch.wait(0)
    landing.write("a.json", "{}{}")
    now[0] = path.stat().st_mtime + 1
    landing.clock = 6.0
    assert watch.wait(0)
    # It is another one by now, so its moment begins anew.
    assert list(watch.landed() or ["lost"]) == []
    landing.clock = 14.9
    assert not watch.wait(0)
    landing.clock, now[0] = 15.1, now[0] + 9.1
    assert landing.heard(watch, count=1) == ["a.json"]


def test_a_marker_brings_its_folder(landing: Landing) -> None:
    landing.complete_when = "_SUCCESS"
    watch = landing.watch()
    landing.names(watch)
    for name in ("d/a.json", "d/b.json", "e/c.json"):
        landing.write(name)
    while watch.wait(0):
        assert list(watch.landed() or ["lost"]) == []
    landing.write("d/_SUCCESS")
    assert landing.heard(watch, count=2) == ["d/a.json", "d/b.json"]


# --- storms and limits -----------------------------------------------------------------------------------------------


def test_a_storm_ends_in_a_look_at_everything(landing: Landing, lookout: FolderWatch) -> None:
    """More events than the kernel's queue holds, or than are remembered: some are lost, and no file is."""
    count = min(int(QUEUE.read_text()) // 2, HEARD_FILES) + 1_000
    for number in range(count):
        landing.write(f"{number}.json", "")
    assert lookout.wait(LONG_S)
    assert lookout.landed() is None
    assert len(landing.names(lookout)) == count
    landing.write("after.json")
    assert landing.heard(lookout, count=1) == ["after.json"]


def test_a_folder_with_more_files_than_are_remembered(landing: Landing, lookout: FolderWatch) -> None:
    outside = landing.folder.parent / "outside"
    outside.mkdir()
    for number in range(HEARD_FILES + 2):
        (outside / f"{number}.json").touch()
    outside.rename(landing.folder / "in")
    assert lookout.wait(LONG_S)
    assert lookout.landed() is None
    assert len(landing.names(lookout)) == HEARD_FILES + 2


class Limited(Inotify):
    """The system lets us watch two folders."""

    watched = 0

    def watch(self, folder: bytes) -> int:
        self.watched += 1
        if self.watched > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().watch(folder)


def test_the_limit_of_watches_turns_watching_into_polling_and_is_said_once(landing: Landing) -> None:
    landing.write("a/x.json")
    watch = landing.watch(Limited)
    assert watch.hears
    assert landing.names(watch) == ["a/x.json"]
    landing.write("b/y.json")
    assert watch.wait(LONG_S)
    assert watch.landed() is None
    assert not watch.hears
    for _ in range(2):
        assert landing.names(watch) == ["a/x.json", "b/y.json"]
        assert watch.landed() is None
    (note,) = landing.notes
    assert "max_user_watches" in note


def no_inotify() -> Inotify:
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_system_without_news_is_polled(landing: Landing) -> None:
    watch = landing.watch(no_inotify)
    landing.write("a.json")
    assert not watch.wait(0)
    assert landing.names(watch) == ["a.json"]
    assert not watch.hears
    assert len(landing.notes) == 1


def test_a_file_system_that_others_write_to_is_polled(landing: Landing) -> None:
    watch = landing.watch(shared=True)
    landing.write("a/b.json")
    assert landing.names(watch) == ["a/b.json"]
    assert not watch.hears
    (note,) = landing.notes
    assert "other machines" in note


def test_closing_gives_the_queue_back(landing: Landing) -> None:
    watch = landing.watch()
    landing.names(watch)
    before = set(Path("/proc/self/fd").iterdir())
    watch.close()
    watch.close()
    assert len(before - set(Path("/proc/self/fd").iterdir())) >= 1


def test_a_single_file_is_polled(landing: Landing) -> None:
    path = landing.write("a.json")
    source = open_source(str(path), file_pattern=None, credentials=None, environ={})
    lookout = open_lookout(source, landing.notes.append)
    assert not lookout.hears
    assert lookout.landed() is None
    assert len(list(lookout.everything())) == 1
