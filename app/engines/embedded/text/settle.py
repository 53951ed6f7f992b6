"""Files that are decoded together where that is certain, and each by itself where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import pyarrow as pa

from app.domain.errors import FileError
from app.engines.embedded.decoding import Decoded, DriftError

GROUP_BYTES = 32 * 1024 * 1024
# A group that is not certain is parted so many ways before each part is tried again.
_PARTS = 8

T = TypeVar("T")
Outcome: TypeAlias = int | FileError | DriftError
Settled: TypeAlias = tuple[pa.Table, list[Outcome]]
Fast: TypeAlias = Callable[[list[T]], tuple[pa.Table, list[int]] | None]
Exact: TypeAlias = Callable[[T], Iterator[pa.Table]]


def settle(items: Sequence[T | FileError], fast: Fast[T], exact: Exact[T], empty: pa.Table) -> Iterator[Settled]:
    """Yield the rows of the items, in order, in as few tables as certainty allows.

    Args:
        items: Files, or what is wrong with them already.
        fast: Gives the rows of files together, or None when it is not certain of them.
        exact: Yields the rows of one file.
        empty: The table of no file.
    """
    good = [item for item in items if not isinstance(item, FileError)]
    if len(good) == len(items):
        decoded = fast(good)
        if decoded is not None:
            yield decoded[0], list(decoded[1])
            return
    if len(items) == 1:
        yield _settle_one(items[0], exact, empty)
        return
    step = -(-len(items) // _PARTS)
    for start in range(0, len(items), step):
        yield from settle(items[start : start + step], fast, exact, empty)


def _settle_one(item: T | FileError, exact: Exact[T], empty: pa.Table) -> Settled:
    if isinstance(item, FileError):
        return empty, [item]
    try:
        table = pa.concat_tables([empty, *exact(item)])
    except (FileError, DriftError) as error:
        return empty, [error]
    return table, [table.num_rows]


def gather(settled: Iterable[Settled], empty: pa.Table) -> Decoded:
    """All that was settled, as one."""
    tables, outcomes = [empty], []
    for table, outcome in settled:
        tables.append(table)
        outcomes.extend(outcome)
    return Decoded(pa.concat_tables(tables), tuple(outcomes))


def by_size(files: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield the files in groups that a parser can take at once."""
    group: list[bytes] = []
    held = 0
    for data in files:
        if group and held + len(data) > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(data)
        held += len(data)
    if group:
        yield group
