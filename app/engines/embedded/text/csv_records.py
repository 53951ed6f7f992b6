"""Records of a CSV file out of bytes that come in pieces; quoted fields are told from plain ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.domain.errors import Category, FileError
from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.feed import TextFeed, TruncatedError

_BLANK_LINES = re.compile(r"(?:\r\n|\n|\r(?!\Z))*")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r(?!\Z))")


class Quoted(str):
    """The content of a field that stood in quotes: text even where it looks like a null."""

    __slots__ = ()


class CsvReader:
    """Reads the records of a file, blank lines left out. Fed with UTF-8."""

    def __init__(self, grammar: CsvGrammar, *, line: int = 1, skip_lines: int = 0) -> None:
        """Begin on `line`, after `skip_lines` more lines."""
        self._grammar = grammar
        self._skip_lines = skip_lines
        self._feed = TextFeed(line=line, lone_returns=True)
        self._begins = 0
        self._has_nul = False

    @property
    def between_records(self) -> bool:
        """Whether what was fed ends between two records: any reader may go on from here."""
        return self._feed.empty

    @property
    def line(self) -> int:
        """The number of the line where the record begins that was yielded last."""
        return self._feed.line

    @property
    def next_line(self) -> int:
        """The number of the line on which that record's end leaves the reader."""
        self._feed.position = self._begins
        return self._feed.line

    @property
    def record_bytes(self) -> tuple[int, int]:
        """Where in the first piece the record begins that was yielded last, and where it ends."""
        begin = len(self._feed.text[: self._feed.position].encode())
        return begin, begin + len(self._feed.text[self._feed.position : self._begins].encode())

    def skip(self, piece: bytes) -> None:
        """Take note that another reader has read `piece`, whole records; only between records."""
        self._feed.skip(piece)

    def feed(self, piece: bytes, *, last: bool = False, flush: bool = False) -> Iterator[list[str]]:
        """Yield the records that end in `piece`; `last` says that nothing follows.

        A long record is not looked for in each piece, but with `flush`, so that none that is whole stays behind.

        Raises:
            TruncatedError: The file ends inside a quoted field.
            FileError: `data_malformed`, or `limit_exceeded` for a record that is too long; with its line.
        """
        if not self._feed.append(piece, last=last, flush=flush):
            return
        yield from self._records(last=last and not self._feed.cut_short)
        self._feed.drop()

    def _records(self, *, last: bool) -> Iterator[list[str]]:
        feed = self._feed
        if last and feed.text and not feed.text.endswith("\n"):
            feed.text += "\n"
        self._has_nul = "\0" in feed.text
        while self._skip_lines:
            match = _LINE.match(feed.text, feed.position)
            if match is None:
                return
            feed.position = match.end()
            self._skip_lines -= 1
        while True:
            blank = _BLANK_LINES.match(feed.text, feed.position)
            feed.position = feed.position if blank is None else blank.end()
            if feed.position == len(feed.text):
                return
            record = self._record(last=last)
            if record is None:
                return
            yield record
            feed.position = self._begins

    def _record(self, *, last: bool) -> list[str] | None:
        """The record at the position; None where more text is needed. Leaves the next one's place behind."""
        text, position, grammar = self._feed.text, self._feed.position, self._grammar
        fields = self._plain_fields(text, position) or []
        if fields:
            return self._checked(fields)
        end = grammar.delimiter
        while end == grammar.delimiter:
            match = grammar.field.match(text, position)
            if match is None:
                self._refuse_broken(position, last=last)
                return None
            quoted, plain, end = match.groups()
            fields.append(grammar.unescaped(plain) if quoted is None else Quoted(grammar.plain_text(quoted)))
            position = match.end()
        self._begins = position
        return self._checked(fields)

    def _plain_fields(self, text: str, position: int) -> list[str] | None:
        """The fields of a record that is a line without any sign but delimiters; None where it may be more."""
        end = text.find("\n", position)
        line = text[position : max(end, position)].removesuffix("\r")
        signs = (self._grammar.quote, self._grammar.escape, "\r")
        if end < 0 or any(sign and sign in line for sign in signs):
            return None
        self._begins = end + 1
        return line.split(self._grammar.delimiter)

    def _checked(self, fields: list[str]) -> list[str]:
        if self._has_nul and any("\0" in field for field in fields):
            raise self._malformed("it holds a NUL byte")
        return fields

    def _refuse_broken(self, position: int, *, last: bool) -> None:
        """Say what is wrong with the field at `position`, unless more text may heal it."""
        closed = self._grammar.quoted.match(self._feed.text, position)
        if closed is not None and closed.end() + 1 < len(self._feed.text):
            after = self._feed.text[closed.end()]
            raise self._malformed(f"after a closed quote comes {after!r} where a delimiter or an end of line must be")
        if last:
            line = self.line
            message = f"A quote is opened in the record that begins on line {line}, and never closed."
            raise TruncatedError(Category.DATA_MALFORMED, message, line=line)
        self._feed.want_more()

    def _malformed(self, what: str) -> FileError:
        line = self.line
        return FileError(Category.DATA_MALFORMED, f"Line {line} is not CSV that can be read: {what}.", line=line)
