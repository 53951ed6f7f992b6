"""A look at the rows of files, for people who want to see what a load would bring. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.errors import FileFailure
from app.domain.files import SourceFile
from app.domain.ports import Reading
from app.domain.types import Struct


@dataclass(frozen=True)
class SampledRows:
    """The first rows of some files.

    Args:
        rows: Column name → value in the form that JSON has for it: texts for dates, decimals and bytes, long ones cut.
        counted: How many rows the part of the files has that was read, those that are not in `rows` included.
        stored_bytes: How much of the files, as they are stored, that part is.
        failed: Files that cannot be read.
    """

    rows: tuple[Mapping[str, Any], ...] = ()
    counted: int = 0
    stored_bytes: int = 0
    failed: tuple[FileFailure, ...] = ()

    def estimate(self, stored_bytes: int) -> int | None:
        """About how many rows so many stored bytes hold; None where nothing was read that could tell."""
        return round(stored_bytes * self.counted / self.stored_bytes) if self.stored_bytes else None


class RowSampler(Protocol):
    """Shows rows."""

    def sample_rows(self, files: Sequence[SourceFile], reading: Reading, schema: Struct, limit: int) -> SampledRows:
        """Read the start of each file under `schema`, which has its columns, and give up to `limit` rows in all.

        Raises:
            EngineDiedError: The processes that read files do not start.
        """
        ...
