"""What a source has now, held against what the ledger knows: two streams in one order, neither ever held whole. Pure.

Order is that of the keys' UTF-8 bytes. No store's order is trusted: a listing that does not rise is sorted from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from app.domain.errors import LedgerUnreadableError
from app.domain.files import LedgerFile, SourceFile

_LAST_CHARACTER = "\U0010ffff"
_BEFORE_SURROGATES, _BEHIND_SURROGATES = 0xD7FF, 0xE000


class Sorter(Protocol):
    """Sorts files by key in bounded memory."""

    def remember(self, file: SourceFile) -> None:
        """Note that `file` was passed on; called in rising order of keys."""
        ...

    def sort(self, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
        """Yield `rest` in key order, each key once, and none that was remembered."""
        ...

    def close(self) -> None:
        """Remove everything that was kept. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Sighting:
    """A file that is there now, and every version of its key that the ledger knows, in the ledger's order."""

    file: SourceFile
    known: tuple[LedgerFile, ...]


def in_key_order(
    listing: Iterator[SourceFile], sorter: Sorter, on_disorder: Callable[[str], None]
) -> Iterator[SourceFile]:
    """Yield the files of `listing`, each key once, in key order as far as the listing lets it.

    While keys rise they are passed through. At the first that does not, the rest is sorted on disk and follows: so
    the whole is one rising sequence, or two of which the second may begin anywhere. Where a key shows twice, as by
    two symbolic links to one file or by a listing that repeats itself, the first sight counts.

    Args:
        listing: As the store gives it.
        sorter: For the rest; closed when the result ends, is closed or fails.
        on_disorder: Told once, with the first key that does not rise.
    """
    last = b""
    try:
        for file in listing:
            order = file.order
            if order == last:
                continue
            if order < last:
                on_disorder(file.key)
                yield from sorter.sort(_with_first(file, listing))
                return
            sorter.remember(file)
            last = order
            yield file
    finally:
        sorter.close()


def _with_first(first: SourceFile, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
    yield first
    yield from rest


def merge_join(listing: Iterator[SourceFile], ledger: Callable[[str], Iterator[LedgerFile]]) -> Iterator[Sighting]:
    """Put to each file what the ledger knows of its key.

    Args:
        listing: Files in key order; at a key below the one before it, the ledger is read again from there.
        ledger: Gives the ledger's rows whose key is above the one handed in, in key order; pulled in step with the
            listing, one row ahead.

    Raises:
        LedgerUnreadableError: The ledger's rows are not in key order, so a known file could be taken for a new one.
    """
    last: SourceFile | None = None
    rows = _Rows(iter(()))
    for file in listing:
        if last is None or file.order < last.order:
            rows = _Rows(ledger(just_before(file.key)))
        yield Sighting(file, rows.of(file.order))
        last = file


class _Rows:
    """The ledger's rows, read forward."""

    def __init__(self, rows: Iterator[LedgerFile]) -> None:
        self._rows = rows
        self._next: LedgerFile | None = None
        self._order = b""
        self._known: tuple[LedgerFile, ...] = ()
        self._advance()

    def of(self, order: bytes) -> tuple[LedgerFile, ...]:
        """The rows of a key, which must not be below that of the call before; those in between are passed over."""
        if self._known and self._known[0].key.encode() == order:
            return self._known
        while self._next is not None and self._order < order:
            self._advance()
        known = []
        while self._next is not None and self._order == order:
            known.append(self._next)
            self._advance()
        self._known = tuple(known)
        return self._known

    def _advance(self) -> None:
        self._next = next(self._rows, None)
        order = b"" if self._next is None else self._next.key.encode()
        if self._next is not None and order < self._order:
            raise LedgerUnreadableError(
                "The ledger's database does not sort keys by their bytes, so what is loaded cannot be told.",
                remedy='Create the database with the collation "C" for the ledger\'s keys.',
            )
        self._order = order


def just_before(key: str) -> str:
    """A key below `key`, with as little between the two as can be: what to read the ledger after to meet `key`."""
    if not key:
        return ""
    code = ord(key[-1])
    if code == 0:
        return key[:-1]
    before = _BEFORE_SURROGATES if code == _BEHIND_SURROGATES else code - 1
    return f"{key[:-1]}{chr(before)}{_LAST_CHARACTER}"
