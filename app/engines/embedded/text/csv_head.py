"""The beginning of a CSV file: what its columns are called, and where its records begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.csv_records import CsvReader
from app.engines.embedded.text.csv_table import check_names, column_names

_REMEMBERED = 1_000


@dataclass(frozen=True)
class CsvHead:
    """The names of a file's columns (none: the file is empty), and the line on which what follows begins."""

    names: tuple[str, ...]
    line: int


class CsvHeads:
    """Reads heads, and remembers those that many files have in common."""

    def __init__(self, grammar: CsvGrammar) -> None:
        """Prepare for files of one grammar."""
        self._grammar = grammar
        self._known: dict[bytes, CsvHead] = {}

    def split(self, text: bytes) -> tuple[CsvHead, bytes]:
        """The head of a whole file, and its records.

        Raises:
            FileError: The head cannot be read, or has a name that is taken.
        """
        line = text[: text.find(b"\n") + 1]
        if not self._is_simple(line):
            head, rest = self.read(iter([text]))
            return head, b"".join(rest)
        head = self._known.get(line) or self.read(iter([line]))[0]
        if len(self._known) < _REMEMBERED:
            self._known[line] = head
        return head, text[len(line) :]

    def _is_simple(self, line: bytes) -> bool:
        """Whether a first line is the whole head, whatever follows it."""
        grammar = self._grammar
        if not grammar.header or grammar.skip_rows or grammar.escape or b"\r" in line[:-2]:
            return False
        return bool(line.strip(b"\r\n")) and not (grammar.quote and grammar.quote.encode() in line)

    def read(self, pieces: Iterator[bytes]) -> tuple[CsvHead, Iterator[bytes]]:
        """The same of a file that comes in pieces.

        Raises:
            FileError: As `split`.
        """
        text, ended = b"", False
        while not ended:
            piece = next(pieces, None)
            ended = piece is None
            text += piece or b""
            reader = CsvReader(self._grammar, skip_lines=self._grammar.skip_rows)
            for fields in reader.feed(text, last=ended):
                return self._head(fields, reader, text, pieces)
        return CsvHead((), 1), iter(())

    def _head(
        self, fields: list[str], reader: CsvReader, text: bytes, pieces: Iterator[bytes]
    ) -> tuple[CsvHead, Iterator[bytes]]:
        begin, end = reader.record_bytes
        line = reader.line
        if not self._grammar.header:
            return CsvHead(column_names([""] * len(fields)), line), _chain(text[begin:], pieces)
        names = column_names(fields)
        check_names(names, line)
        after = reader.next_line
        return CsvHead(names, after), _chain(text[end:], pieces)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
