"""Where commands on ingestions are carried out: by the services in this process, or by a server.

What comes back is the JSON of the API, the same from both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from app.domain.errors import NotFoundError

Json = dict[str, Any]
Progress = Callable[[int, int], None]

PAGE = 500
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class News(Protocol):
    """Of one run."""

    def wait(self) -> None:
        """Return when something may have changed since this was last waited for; at the latest after some seconds."""
        ...


class Desk(Protocol):
    """Does what is asked with ingestions. Errors are those of the service, wherever it is."""

    def create(self, document: Mapping[str, Any]) -> Json:
        """Make one; it, with `warnings`.

        Raises:
            InvalidFieldError, NotSupportedError, NameTakenError: Nothing was made.
        """
        ...

    def ingestion(self, ingestion_id: str) -> Json:
        """One.

        Raises:
            NotFoundError: There is none of that id.
        """
        ...

    def ingestions(
        self, *, status: str | None = None, source_type: str | None = None, q: str | None = None, limit: int
    ) -> list[Json]:
        """The newest, `limit` at most."""
        ...

    def pause(self, ingestion_id: str) -> Json:
        """Let its schedule rest; its status, and `warnings` where there are any."""
        ...

    def resume(self, ingestion_id: str) -> Json:
        """Let it go on; as `pause`."""
        ...

    def delete(self, ingestion_id: str, *, delete_table: bool) -> None:
        """Delete it."""
        ...

    def run(self, ingestion_id: str, *, waits: bool = True) -> Json:
        """Begin a run; what became of the wish.

        Args:
            ingestion_id: Of which.
            waits: Whether a direct run is waited for, as long as the settings of whoever carries it out say.

        Raises:
            NotFoundError, NotActiveError, RunAtWorkError: None was begun.
        """
        ...

    def runs(self, ingestion_id: str, *, limit: int) -> list[Json]:
        """Its runs, newest first."""
        ...

    def run_of(self, ingestion_id: str, run_id: str) -> Json:
        """One run as it is now."""
        ...

    def log(self, ingestion_id: str, run_id: str, *, after: int) -> list[Json]:
        """Lines of its log (`number`, `at`, `level`, `message`) with higher numbers than `after`, some at a time."""
        ...

    def listening(self, ingestion_id: str, run_id: str) -> AbstractContextManager[News]:
        """News of a run, until the block ends."""
        ...

    def migrate(self, *, dry_run: bool, on_progress: Progress) -> Json:
        """Make the deployments that scheduled ingestions lack, until none is left; what was done."""
        ...

    def pause_for(self, seconds: float) -> None:
        """Let time go by, in which what this process has to see to goes on."""
        ...


def find(desk: Desk, name: str) -> Json:
    """The ingestion of that id or of that name.

    Raises:
        NotFoundError: There is none, or several have the name.
    """
    if _ID.fullmatch(name):
        with suppress(NotFoundError):
            return desk.ingestion(name)
    # `q` is a part of the name, in any case.
    named = [one for one in desk.ingestions(q=name[:200], limit=10 * PAGE) if one["name"] == name]
    if not named:
        raise NotFoundError(
            f"There is no ingestion {name!r}.", remedy="`autoloader ingestions list` shows those that there are."
        )
    if len(named) > 1:
        ids = ", ".join(str(one["id"]) for one in named)
        raise NotFoundError(f"Several ingestions are called {name!r}.", remedy=f"Give the id of one: {ids}.")
    return named[0]
