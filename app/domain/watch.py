"""Who is told how a run goes on, and the named places where a test may stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


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


# Called with the name of a place on the run's path; does nothing unless a test set a failure there.
Failpoint: TypeAlias = Callable[[str], None]

# Every name that is ever passed; a test fails when one is not reached.
FAILPOINTS = (
    "lease_taken",
    "batch_claimed",
    "schema_inferred",
    "data_written",
    "manifest_written",
    "commit_attempt",
    "committed",
    "batch_closed",
    "run_finished",
    "lease_released",
)
