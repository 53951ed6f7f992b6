"""What is in a source now, without loading it: counted as its listing streams, up to a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from app.domain.files import SourceFile
from app.domain.locations import source_type
from app.services.preflight import LoadRequest, OpenSource, Prepared, prepare

# A listing of so many files takes some seconds at an object store; beyond it a person waits in vain.
MAX_FILES = 200_000
# So many are kept to look into.
KEPT_FILES = 1_000
RECENT = timedelta(days=30)


@dataclass
class SourceLook:
    """A source as its listing shows it.

    Args:
        complete: Whether all of its files were counted.
        kept: Files to look into: the first ones, and of the others some at even distances.
        recent_files: Modified within the last `RECENT`.
    """

    prepared: Prepared
    source_type: str
    complete: bool = True
    files: int = 0
    stored_bytes: int = 0
    oldest_at: datetime | None = None
    newest_at: datetime | None = None
    recent_files: int = 0
    recent_bytes: int = 0
    kept: list[SourceFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, file: SourceFile, recent_from: datetime) -> None:
        """Count a file."""
        self.files += 1
        self.stored_bytes += file.size_bytes
        self.oldest_at = min(self.oldest_at or file.modified_at, file.modified_at)
        self.newest_at = max(self.newest_at or file.modified_at, file.modified_at)
        if file.modified_at >= recent_from:
            self.recent_files += 1
            self.recent_bytes += file.size_bytes
        if file.size_bytes and len(self.kept) < KEPT_FILES:
            self.kept.append(file)


def look(
    request: LoadRequest, open_source: OpenSource, keep_out: Sequence[str], now: datetime, *, max_files: int = MAX_FILES
) -> SourceLook:
    """List the source of `request`.

    Args:
        request: What is asked about.
        open_source: Opens it.
        keep_out: Folders of ours that no source may find files in.
        now: Recent files are recent as of then.
        max_files: Where the count ends.

    Raises:
        AutoloaderError: As a load would before it reads a file.
    """
    prepared = prepare(request, open_source, keep_out)
    seen = SourceLook(prepared, source_type(prepared.source.root))
    for file in islice(prepared.listing, max_files):
        seen.add(file, now - RECENT)
    seen.complete = seen.files < max_files or next(prepared.listing, None) is None
    if not seen.complete:
        seen.warnings.append(f"The source has more than {max_files:,} files; the figures are of the first ones.")
    if not seen.files:
        seen.warnings.append("No file of the source matches: check the path and the pattern.")
    return seen
