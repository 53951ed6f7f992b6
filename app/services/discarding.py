"""Remove data files that a batch wrote and that no commit will ever name."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.errors import WriteFailureError
from app.domain.events import EventLog
from app.domain.ports import DataFile, Draft

log = EventLog(__name__)


def discard(draft: Draft, data_files: Sequence[DataFile]) -> None:
    """Remove data files that no commit will ever name, as far as they can be removed.

    What stays is an orphan that a sweep takes. That must not hide why the files are not wanted any more, nor
    whether their batch is in the table.
    """
    sink = draft.sink()
    for file in data_files:
        try:
            sink.delete(file.path)
        except WriteFailureError as error:
            log.warning("data_file_not_removed", path=file.path, reason=str(error))
