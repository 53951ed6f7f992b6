"""Lookouts that nobody tells anything: they look again and again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from app.domain.files import SourceFile
from app.domain.ports import Source
from app.sources.object_store import ObjectStoreSource

# A glance at a store begins so many keys before its last one.
WINDOW_KEYS = 1_000


class Polling:
    """Keeps the promises of `Lookout` by looking at everything each time."""

    hears = False

    @property
    def glances(self) -> bool:
        """Never: only a look at everything can tell."""
        return False

    def __init__(self, source: Source, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Look at `source`, and wait by `pause`."""
        self._source = source
        self._pause = pause

    def wait(self, seconds: float) -> bool:
        """Wait for so long; never True."""
        self._pause(seconds)
        return False

    def everything(self) -> Iterator[SourceFile]:
        """Every matching file that is whole."""
        yield from self._source.discover()

    def landed(self) -> Iterator[SourceFile] | None:
        """None: only a look at everything can tell."""
        return None

    def close(self) -> None:
        """Holds nothing."""


class StoreWatch(Polling):
    """Keeps the promises of `Lookout` on an object store, by glances at the end of its listing.

    The window of a glance begins behind the first of the last `window_keys` keys that the look before has seen, and is
    open to the end: an object is found in it that sorts behind the last one, or among so many before it. What sorts
    before the window, a look at everything finds. There is no window, and no glance, where the last look saw fewer keys
    than one holds, where the store does not list in the order of the keys' bytes, and where folders are complete by a
    marker, which may come long after the keys of its folder.
    """

    def __init__(
        self, source: ObjectStoreSource, *, window_keys: int = WINDOW_KEYS, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Look at `source`; `window_keys` is above zero."""
        super().__init__(source, pause=pause)
        self._store = source
        self._window_keys = window_keys
        # The last keys of the listing, in its order; None where a glance would overlook too much.
        self._window: tuple[SourceFile, ...] | None = None

    @property
    def glances(self) -> bool:
        """Whether there is a window."""
        return self._window is not None

    def everything(self) -> Iterator[SourceFile]:
        """Every matching object."""
        yield from self._remembering(self._store.discover(), ())

    def landed(self) -> Iterator[SourceFile] | None:
        """The objects in the window, known ones too."""
        if self._window is None:
            return None
        first, *_ = self._window
        return self._remembering(self._store.discover_after(first.key), (first,))

    def _remembering(self, listing: Iterator[SourceFile], before: tuple[SourceFile, ...]) -> Iterator[SourceFile]:
        """Pass the listing on; when it has come to its end, the window moves."""
        last = deque(before, maxlen=self._window_keys)
        rises = self._store.marker is None
        for file in listing:
            rises = rises and (not last or last[-1].order < file.order)
            last.append(file)
            yield file
        is_full = len(last) == self._window_keys
        if not rises:
            self._window = None
        elif is_full:
            self._window = tuple(last)
        elif not before:
            self._window = None
