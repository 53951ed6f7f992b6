"""Where the folders are that are watched."""

from __future__ import annotations


class Places:
    """Which watch is on which folder, by its path below the root; links may lead to one folder on several paths."""

    def __init__(self) -> None:
        self._paths: dict[int, set[bytes]] = {}
        self._watches: dict[bytes, int] = {}
        # Folder → the folders in it that are watched.
        self._inside: dict[bytes, set[bytes]] = {}

    def add(self, watch: int, path: bytes) -> None:
        """Note that the folder at `path` has this watch."""
        before = self._watches.get(path)
        if before is not None and before != watch:
            self._unlink(before, path)
        self._paths.setdefault(watch, set()).add(path)
        self._watches[path] = watch
        if path:
            self._inside.setdefault(path.rpartition(b"/")[0], set()).add(path)

    def of(self, watch: int) -> tuple[bytes, ...]:
        """The paths of a watch; none where it is not known."""
        return tuple(self._paths.get(watch, ()))

    def remove(self, watch: int) -> None:
        """Forget a watch that the kernel has ended. The folders in its own have watches that end by themselves."""
        for path in self._paths.pop(watch, ()):
            if self._watches.get(path) == watch:
                del self._watches[path]
                self._leave(path)

    def forget(self, path: bytes) -> list[int]:
        """Forget the folder at `path` and what is in it; returns the watches that no other path leads to."""
        idle, todo = [], [path]
        self._leave(path)
        while todo:
            one = todo.pop()
            todo.extend(self._inside.pop(one, ()))
            watch = self._watches.pop(one, None)
            if watch is not None and self._unlink(watch, one):
                idle.append(watch)
        return idle

    def _leave(self, path: bytes) -> None:
        above = path.rpartition(b"/")[0]
        inside = self._inside.get(above, set())
        inside.discard(path)
        if not inside:
            self._inside.pop(above, None)

    def _unlink(self, watch: int, path: bytes) -> bool:
        paths = self._paths.get(watch, set())
        paths.discard(path)
        if not paths:
            self._paths.pop(watch, None)
        return not paths
