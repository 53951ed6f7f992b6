"""A lookout over a local folder that is told by the kernel what happens there.

Three promises make up for what the kernel's news cannot do. A folder is watched *before* it is read, so a file lands
either early enough to be read or late enough to be told of. News that were lost lead to a look at everything. And where
the system lets us watch no more folders, or others may write unseen, the folder is polled from then on.
"""

from __future__ import annotations

import math
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.domain.files import SourceFile
from app.domain.locations import file_key
from app.sources import inotify
from app.sources.inotify import Event, Inotify
from app.sources.local import LocalSource
from app.sources.mounts import is_shared
from app.sources.places import Places
from app.sources.settling import Sight
from app.sources.walk import joined

# Above so many files of which something was heard, everything is looked at: memory stays flat in any storm.
HEARD_FILES = 10_000
# A file that was made while we watched is taken when its writer closes it, or when it stood still for so long.
OPEN_PATIENCE_S = 60.0
LONGEST_SLEEP_S = 3_600.0
# So often the kernel's queue is read before what was heard is looked at, should it fill as fast as it is read.
_READS = 16


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A file that may have landed: when to look at it, what it was at the last look, how long it must stand still."""

    due: float
    patience_s: float
    version: str | None = None


class FolderWatch:
    """Keeps the promises of `Lookout` on a `LocalSource` that is a folder."""

    def __init__(
        self,
        source: LocalSource,
        note: Callable[[str], None],
        *,
        open_inotify: Callable[[], Inotify] = Inotify,
        shared: Callable[[bytes], bool] = is_shared,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to listen; folders are watched from the first look at everything on.

        Args:
            source: Where to look.
            note: Told, once, why the folder is polled.
            open_inotify: Opens the kernel's news.
            shared: Whether other machines may write to a folder, given its real path.
            clock: Seconds that only go forward.
        """
        self._source = source
        self._note = note
        self._shared = shared
        self._clock = clock
        self._inotify: Inotify | None = None
        self._places = Places()
        self._waiting: dict[bytes, _Waiting] = {}
        # Folders of which nothing is known yet, by their path below the root.
        self._fresh: set[bytes] = set()
        self._lost = False
        self._devices: set[int] = set()
        try:
            self._inotify = open_inotify()
        except OSError as error:
            self._go_deaf(f"the system gives no news of folders ({error.strerror})")

    @property
    def hears(self) -> bool:
        """Whether the kernel tells what lands."""
        return self._inotify is not None

    @property
    def glances(self) -> bool:
        """Whether what the kernel told is enough."""
        return self.hears

    def close(self) -> None:
        """Stop to listen. Idempotent."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    # --- looking --------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until something landed that can be taken; then True."""
        end = self._clock() + seconds
        while self._inotify is not None:
            self._listen(self._inotify)
            now = self._clock()
            due = min((one.due for one in self._waiting.values()), default=end)
            if self._lost or self._fresh or (self._waiting and due <= now):
                return True
            if now >= end:
                return False
            poll = select.poll()
            poll.register(self._inotify, select.POLLIN)
            poll.poll(math.ceil(min(due - now, end - now, LONGEST_SLEEP_S) * 1000))
        time.sleep(max(end - self._clock(), 0.0))
        return False

    def everything(self) -> Iterator[SourceFile]:
        """Every matching file that is whole; each folder is watched from right before it is read."""
        if self._inotify is None:
            yield from self._source.discover()
            return
        self._lost = False
        self._fresh.clear()
        held_open = {file_key(os.path.realpath(joined(self._source.path, below))) for below in self._open_files()}
        for sight in self._source.sights(self._watch):
            if sight.file.key not in held_open and self._is_whole(sight):
                yield sight.file

    def landed(self) -> Iterator[SourceFile] | None:
        """The files of which something was heard, as far as they are whole; None: look at everything."""
        if self._inotify is None or self._lost:
            return None
        found: dict[str, SourceFile] = {}
        for sight in self._heard_of():
            if self._is_whole(sight):
                found[sight.file.key] = sight.file
            if len(found) > HEARD_FILES or self._lost or self._inotify is None:
                return None
        return iter(sorted(found.values(), key=lambda file: file.order))

    def _heard_of(self) -> Iterator[Sight]:
        folders, self._fresh = sorted(self._fresh), set()
        for folder in folders:
            yield from self._source.sights_below(folder, self._watch)
        now = self._clock()
        for below in [path for path, one in self._waiting.items() if one.due <= now]:
            file = self._source.sight(below)
            if file is None:
                self._waiting.pop(below, None)
            else:
                yield Sight(below, file)

    def _is_whole(self, sight: Sight) -> bool:
        """Whether the file stood still for its moment; if not, when to look again is noted."""
        now = self._clock()
        before = self._waiting.get(sight.below)
        patience_s = self._source.moment.seconds if before is None else before.patience_s
        left_s = self._source.moment.left_s(sight.file, patience_s)
        if before is not None and before.version == sight.file.version:
            if before.due > now:
                return False
            left_s = 0.0
        if left_s <= 0:
            self._waiting.pop(sight.below, None)
            return True
        self._expect(sight.below, _Waiting(now + left_s, patience_s, sight.file.version))
        return False

    def _open_files(self) -> list[bytes]:
        return [below for below, one in self._waiting.items() if one.patience_s > self._source.moment.seconds]

    def _expect(self, below: bytes, waiting: _Waiting) -> None:
        if len(self._waiting) >= HEARD_FILES and below not in self._waiting:
            self._lose()
        else:
            self._waiting[below] = waiting

    def _lose(self) -> None:
        self._lost = True
        self._fresh.clear()
        # What is held open is kept: only that tells a file that is slow to be written from one that is whole.
        self._waiting = {below: self._waiting[below] for below in self._open_files()[: HEARD_FILES // 2]}

    # --- what the kernel says ---------------------------------------------------------------------------------------

    def _listen(self, news: Inotify) -> None:
        for _ in range(_READS):
            events = news.events()
            if not events:
                return
            for event in events:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        if event.mask & inotify.Q_OVERFLOW:
            self._lose()
        elif event.mask & inotify.IGNORED:
            self._places.remove(event.watch)
        elif event.mask & (inotify.DELETE_SELF | inotify.MOVE_SELF):
            self._folder_went(event.watch)
        else:
            for folder in self._places.of(event.watch):
                below = joined(folder, event.name)
                if event.mask & inotify.ISDIR:
                    self._hear_of_folder(below, event.mask)
                else:
                    self._hear_of_file(folder, below, event.mask)

    def _folder_went(self, watch: int) -> None:
        # The folder above it, where that is watched, tells the rest. The root has none.
        if b"" in self._places.of(watch):
            self._lost = True
        self._places.remove(watch)
        if self._inotify is not None:
            self._inotify.forget(watch)

    def _hear_of_folder(self, below: bytes, mask: int) -> None:
        self._forget_below(below)
        if mask & (inotify.CREATE | inotify.MOVED_TO) and self._source.enters(below):
            self._read_anew(below)

    def _hear_of_file(self, folder: bytes, below: bytes, mask: int) -> None:
        if mask & inotify.MOVED_FROM:
            self._waiting.pop(below, None)
            self._forget_below(below)
        elif self._source.marker is not None and below.rpartition(b"/")[2] == self._source.marker:
            self._read_anew(folder)
        elif mask & (inotify.CREATE | inotify.MOVED_TO) and self._is_link_to_folder(below):
            self._forget_below(below)
            if self._source.enters(below):
                self._read_anew(below)
        elif self._source.wants(below):
            settle_s = self._source.moment.seconds
            is_open = mask & inotify.CREATE and self._source.marker is None and self._is_made_by_opening(below)
            patience_s = max(OPEN_PATIENCE_S, settle_s) if is_open else settle_s
            self._expect(below, _Waiting(self._clock() + (patience_s if is_open else 0.0), patience_s))

    def _read_anew(self, folder: bytes) -> None:
        if len(self._fresh) < HEARD_FILES:
            self._fresh.add(folder)
        else:
            self._lose()

    def _is_link_to_folder(self, below: bytes) -> bool:
        path = joined(self._source.path, below)
        return os.path.islink(path) and os.path.isdir(path)  # noqa: PTH112, PTH114

    def _is_made_by_opening(self, below: bytes) -> bool:
        """Whether somebody has it open who will close it: neither a link nor a second name of a file is made so."""
        try:
            status = os.lstat(joined(self._source.path, below))
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_nlink == 1

    # --- watching ---------------------------------------------------------------------------------------------------

    def _watch(self, folder: bytes) -> None:
        """Watch a folder below the root; what cannot be read is left to the walk to tell."""
        if self._inotify is None:
            return
        path = joined(self._source.path, folder) if folder else self._source.path
        try:
            if self._is_shared(path):
                self._go_deaf("it is on a file system that other machines may write to")
            else:
                self._places.add(self._inotify.watch(path), folder)
        except OSError as error:
            if error.errno in inotify.LIMITS:
                self._go_deaf(
                    f"the system lets us watch no more folders ({error.strerror}; see fs.inotify.max_user_watches)"
                )

    def _is_shared(self, path: bytes) -> bool:
        device = os.stat(path).st_dev  # noqa: PTH116
        if device in self._devices:
            return False
        self._devices.add(device)
        return self._shared(os.path.realpath(path))

    def _forget_below(self, folder: bytes) -> None:
        """Watch no longer what was reached by this path: something else is there now, or nothing."""
        self._fresh.discard(folder)
        for watch in self._places.forget(folder):
            if self._inotify is not None:
                self._inotify.forget(watch)

    def _go_deaf(self, reason: str) -> None:
        self.close()
        self._places = Places()
        self._waiting.clear()
        self._fresh.clear()
        self._note(f"The folder is looked at again and again instead of being watched: {reason}.")
