"""Text that grows at its end while a reader eats from its front, with the number of the line it is at."""

from __future__ import annotations

import codecs

from app.domain.errors import Category, FileError

MAX_RECORD_CHARACTERS = 64 * 1024 * 1024


class TruncatedError(FileError):
    """The file ends inside a record."""


class TextFeed:
    """Decodes UTF-8 that comes in pieces. `text` from `position` on is what the reader has not eaten yet."""

    def __init__(self, *, line: int = 1, lone_returns: bool = False) -> None:
        """Begin on `line`; `lone_returns` says that a carriage return without a newline ends a line too."""
        self.text = ""
        self.position = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        self._lone_returns = lone_returns
        self._waiting: list[str] = []
        self._counted = 0
        self._line = line
        self._wanted = 0
        self._undecodable = False

    @property
    def line(self) -> int:
        """The number of the line at `position`."""
        # Counted from where the last count ended: asked for at each record, it must not begin anew.
        self._line += self._lines(self._counted, self.position)
        self._counted = self.position
        return self._line

    @property
    def empty(self) -> bool:
        """Whether everything was eaten, half a character at the end included."""
        return not self.text and not self._waiting and self._utf8.getstate()[0] == b""

    def skip(self, piece: bytes) -> None:
        """Take note that `piece` was read elsewhere; only when `empty`."""
        self._line += piece.count(b"\n")
        # Looking for one is an order cheaper than counting none.
        if self._lone_returns and b"\r" in piece:
            self._line += piece.count(b"\r") - piece.count(b"\r\n")

    def append(self, piece: bytes, *, last: bool, flush: bool = False) -> bool:
        """Add a piece; whether there is enough text by now to go on reading, as there always is to `flush`.

        What stands before bad bytes is still read: the first error of a file is the one that is told, however the
        file was cut into pieces.
        """
        try:
            text = self._utf8.decode(piece, last)
        except UnicodeDecodeError as error:
            text = error.object[: error.start].decode()
            self._undecodable = True
        self._waiting.append(text)
        if not (last or flush or self._undecodable) and sum(map(len, self._waiting)) < self._wanted:
            return False
        self.text = "".join((self.text, *self._waiting))
        self._waiting.clear()
        self._wanted = 0
        return True

    @property
    def cut_short(self) -> bool:
        """Whether bytes follow the text that are no UTF-8."""
        return self._undecodable

    def want_more(self) -> None:
        """Ask for twice as much before the next try, so that a long record is not read once for each piece of it.

        Raises:
            FileError: `limit_exceeded`: the record is too long.
        """
        self._wanted = len(self.text) - self.position
        if self._wanted > MAX_RECORD_CHARACTERS:
            line = self.line
            message = (
                f"The record that begins on line {line} is longer than {MAX_RECORD_CHARACTERS} characters; "
                "perhaps a quote or a bracket is never closed."
            )
            raise FileError(Category.LIMIT_EXCEEDED, message, line=line)

    def drop(self) -> None:
        """Forget what was eaten.

        Raises:
            FileError: `data_malformed`: the bytes that follow are no UTF-8.
        """
        self._line = self.line
        self.text = self.text[self.position :]
        self.position = self._counted = 0
        if self._undecodable:
            line = self._line + self._lines(0, len(self.text))
            message = (
                f"Line {line} holds bytes that are not UTF-8. "
                "If the files have another encoding, give it with --encoding."
            )
            raise FileError(Category.DATA_MALFORMED, message, line=line)

    def _lines(self, start: int, end: int) -> int:
        count = self.text.count("\n", start, end)
        if self._lone_returns:
            count += self.text.count("\r", start, end) - self.text.count("\r\n", start, end)
        return count
