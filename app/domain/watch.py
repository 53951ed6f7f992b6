"""Who is told how a run goes on."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Told what a run does, for people to see. Called from any thread; must return at once and never raise."""

    def note(self, text: str) -> None:
        """One sentence about something out of the ordinary: a wait, a recovery, a table that is made."""
        ...

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        """A batch was claimed."""
        ...

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """So much more of the batch was read and written."""
        ...

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        """The batch is in the table, or was left out whole."""
        ...
