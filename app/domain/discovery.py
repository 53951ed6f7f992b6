"""What a source has now, held against what the ledger knows: two streams in one order, neither ever held whole. Pure.

Order is that of the keys' UTF-8 bytes; texts compare as these do, so that nothing is encoded here. No store's order is
trusted: a listing that does not rise is sorted from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import le
from typing import NamedTuple, Protocol

from app.domain.errors import LedgerUnreadableError
from app.domain.files import FileState, KnownVersion, SourceFile

_LAST_CHARACTER = "\U0010ffff"
# Above so many rows of files that were not asked for, it is cheaper to begin anew than to read on.
_PASSED_ROWS = 1_000
_BEFORE_SURROGATES, _BEHIND_SURROGATES = 0xD7FF, 0xE000


class Sorter(Protocol):
    """Sorts files by key in bounded memory."""

    def remember(self, key: str) -> None:
        """Note that a file of this key was passed on; called in rising order of keys."""
        ...

    def sort(self, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
        """Yield `rest` in key order, each key once, and none that was remembered."""
        ...

    def close(self) -> None:
        """Remove everything that was kept. Idempotent."""
        ...


class Sighting(NamedTuple):
    """A file that is there now, and every version of its key that the ledger knows, in the ledger's order."""

    file: SourceFile
    known: tuple[KnownVersion, ...]


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """All that the ledger knows of the keys up to `last`, from where the page was asked for or the one before it ended.

    Args:
        last: The last key that the page tells of.
        loaded: Key → version that is loaded; of a key with several, one of them.
        others: Key → all versions, of each key that has another one than that.
    """

    last: str
    loaded: Mapping[str, str]
    others: Mapping[str, tuple[KnownVersion, ...]]

    def known(self, key: str) -> tuple[KnownVersion, ...]:
        """Every version of the key."""
        if key in self.others:
            return self.others[key]
        return (KnownVersion(key, self.loaded[key], FileState.SUCCESS),) if key in self.loaded else ()


# Behind it there is nothing.
_LAST_PAGE = LedgerPage("", {}, {})


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
    last, remember = "", sorter.remember
    try:
        for file in listing:
            key = file.key
            if key > last:
                remember(key)
                last = key
                yield file
            elif key < last:
                on_disorder(key)
                yield from sorter.sort(_with_first(file, listing))
                return
    finally:
        sorter.close()


def _with_first(first: SourceFile, rest: Iterator[SourceFile]) -> Iterator[SourceFile]:
    yield first
    yield from rest


def news(
    listing: Iterator[SourceFile],
    ledger: Callable[[str], Iterator[LedgerPage]],
    on_loaded: Callable[[SourceFile], None],
) -> Iterator[Sighting]:
    """Yield what `merge_join` does, but for files that are loaded in this very version: of most listings nearly all.

    Args:
        listing: Files in key order; at a key below the one before it, the ledger is read again from there.
        ledger: Gives the ledger's pages from the key handed in on. Where the listing leaps over a whole page, it is
            read anew.
        on_loaded: Told of each file that is left out.
    """
    pages = _Pages(ledger)
    page, loaded = _LAST_PAGE, _LAST_PAGE.loaded
    begin = end = ""
    goes_on = True
    for file in listing:
        key = file.key
        if (key > end and goes_on) or key < begin:
            page = pages.around(key)
            loaded, begin, end, goes_on = page.loaded, key, page.last, page is not _LAST_PAGE
        if loaded.get(key) == file.version:
            on_loaded(file)
        else:
            yield Sighting(file, page.known(key))


class _Pages:
    """The ledger as a listing comes by it."""

    def __init__(self, ledger: Callable[[str], Iterator[LedgerPage]]) -> None:
        self._ledger = ledger
        self._pages: Iterator[LedgerPage] = iter(())
        self._begin: str | None = None

    def around(self, key: str) -> LedgerPage:
        """A page that tells of all keys from `key` to its last; the next is tried before the ledger is read anew."""
        page = None if self._begin is None or key < self._begin else next(self._pages, _LAST_PAGE)
        if page is None or (page is not _LAST_PAGE and page.last < key):
            self._pages = self._ledger(just_before(key))
            page = next((page for page in self._pages if page.last >= key), _LAST_PAGE)
        self._begin = key
        return page


def merge_join(listing: Iterator[SourceFile], ledger: Callable[[str], Iterator[KnownVersion]]) -> Iterator[Sighting]:
    """Put to each file what the ledger knows of its key.

    Args:
        listing: Files in key order; at a key below the one before it, the ledger is read again from there.
        ledger: Gives the ledger's rows whose key is above the one handed in, in key order; pulled in step with the
            listing, one row ahead. Where the listing leaps over many rows, the ledger is read anew from there.

    Raises:
        LedgerUnreadableError: The ledger's rows are not in key order, so a known file could be taken for a new one.
    """
    last: str | None = None
    rows: Iterator[KnownVersion] = iter(())
    row: KnownVersion | None = None
    known: tuple[KnownVersion, ...] = ()
    for file in listing:
        key = file.key
        if last is None or key < last:
            rows = _rising(ledger(just_before(key)))
            row = next(rows, None)
        if key != last:
            passed = 0
            while row is not None and row.key < key:
                passed += 1
                if passed == _PASSED_ROWS:
                    rows = _rising(ledger(just_before(key)))
                row = next(rows, None)
            known = ()
            while row is not None and row.key == key:
                known = (*known, row)
                row = next(rows, None)
        yield Sighting(file, known)
        last = key


def _rising(rows: Iterator[KnownVersion]) -> Iterator[KnownVersion]:
    last = ""
    for row in rows:
        check_rising((last, row.key))
        last = row.key
        yield row


def check_rising(keys: Sequence[str]) -> None:
    """Refuse keys of a ledger that come in another order.

    Raises:
        LedgerUnreadableError: They do.
    """
    if not all(map(le, keys, islice(keys, 1, None))):
        raise LedgerUnreadableError(
            "The ledger's database does not sort keys by their bytes, so what is loaded cannot be told.",
            remedy='Create the database with the collation "C" for the ledger\'s keys.',
        )


def just_before(key: str) -> str:
    """A key below `key`, with as little between the two as can be: what to read the ledger after to meet `key`."""
    if not key:
        return ""
    code = ord(key[-1])
    if code == 0:
        return key[:-1]
    before = _BEFORE_SURROGATES if code == _BEHIND_SURROGATES else code - 1
    return f"{key[:-1]}{chr(before)}{_LAST_CHARACTER}"
