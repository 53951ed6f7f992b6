"""Top-level JSON objects out of bytes that come in pieces, each token as it was written."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator

from app.domain.errors import Category, FileError
from app.engines.embedded.text.feed import TextFeed, TruncatedError
from app.engines.embedded.text.values import Integer, Real, Value, json_text, shown

MAX_DEPTH = 100

_BLANK = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# The longest token whose cut end looks like an error some characters before the end of the text: \ud83d\ude00.
_LONGEST_CUT = 12
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
# A number that is cut here was read as if it ended before.
_NUMBER_TAILS = (".", "e", "E", "e+", "e-", "E+", "E-")


class _MalformedError(Exception):
    """A token or an object that JSON does not allow."""


class _State(enum.Enum):
    START = enum.auto()
    OBJECTS = enum.auto()
    ARRAY_START = enum.auto()
    ARRAY_ITEM = enum.auto()
    ARRAY_COMMA = enum.auto()
    ENDED = enum.auto()


def _refuse_constant(name: str) -> Value:
    raise _MalformedError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _MalformedError(f"the key {shown(twice)} occurs twice in one object")
    return result


class JsonReader:
    """Reads a file that is a stream of objects, in any layout, or one array of objects. Fed with UTF-8."""

    def __init__(self, *, line: int = 1, begun: bool = False) -> None:
        """Begin on `line`; `begun` says that objects of the same stream stand before it."""
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_object, parse_int=Integer, parse_float=Real, parse_constant=_refuse_constant
        )
        self._state = _State.OBJECTS if begun else _State.START
        self._feed = TextFeed(line=line)

    @property
    def between_records(self) -> bool:
        """Whether what was fed ends between two objects of a stream: any reader may go on from here."""
        return self._feed.empty and self._state in {_State.START, _State.OBJECTS}

    @property
    def line(self) -> int:
        """The number, from 1, of the line where the record begins that was yielded last."""
        return self._feed.line

    def skip(self, piece: bytes) -> None:
        """Take note that another reader has read `piece`, whole records of a stream; only between records."""
        self._feed.skip(piece)
        if self._state is _State.START and not piece.isspace():
            self._state = _State.OBJECTS

    def feed(self, piece: bytes, *, last: bool = False, flush: bool = False) -> Iterator[dict[str, Value]]:
        """Yield the records that end in `piece`, in order; `last` says that nothing follows.

        A long record is not looked for in each piece, but with `flush`, so that none that is whole stays behind.

        Raises:
            TruncatedError: The file ends inside a record or an array.
            FileError: `data_malformed`, or `limit_exceeded` for a record that is too deep or too long; with its line.
        """
        if not self._feed.append(piece, last=last, flush=flush):
            return
        yield from self._records(last=last and not self._feed.cut_short)
        self._feed.drop()
        if last:
            self._check_end()

    def _records(self, *, last: bool) -> Iterator[dict[str, Value]]:
        feed = self._feed
        while (position := _blank_end(feed.text, feed.position)) < len(feed.text):
            feed.position = position
            if self._state is not _State.OBJECTS and self._step_array():
                continue
            parsed = self._parse(last=last)
            if parsed is None:
                return
            record, end = parsed
            yield record
            feed.position = end
            self._state = _State.OBJECTS if self._state in {_State.START, _State.OBJECTS} else _State.ARRAY_COMMA
        feed.position = position

    def _step_array(self) -> bool:
        """Take one of the signs around an array's items, if it is one's turn."""
        sign = self._feed.text[self._feed.position]
        follows = _ARRAY_STEPS.get((self._state, sign))
        if follows is not None:
            self._state = follows
            self._feed.position += 1
            return True
        if self._state is _State.ENDED:
            raise self._malformed("something follows the end of the array")
        if self._state is _State.ARRAY_COMMA:
            raise self._malformed("a comma or the end of the array is missing")
        return False

    def _parse(self, *, last: bool) -> tuple[dict[str, Value], int] | None:
        start = self._feed.position
        if self._feed.text[start] != "{":
            raise self._malformed(
                f"every record must be an object, and here {shown(self._feed.text[start])} begins one"
            )
        try:
            value, end = self._decoder.raw_decode(self._feed.text, start)
        except json.JSONDecodeError as error:
            if not _is_cut(error, self._feed.text):
                raise self._malformed(f"{error.msg} (character {error.pos - start + 1} of the record)") from error
            if last:
                raise self._cut() from error
            self._feed.want_more()
            return None
        except _MalformedError as error:
            raise self._malformed(str(error)) from error
        except RecursionError as error:
            raise self._too_deep() from error
        self._check(value, start, end)
        return value, end

    def _check(self, value: dict[str, Value], start: int, end: int) -> None:
        signs = self._feed.text.count("{", start, end) + self._feed.text.count("[", start, end)
        if signs > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
            raise self._too_deep()
        if _SURROGATE.search(self._feed.text, start, end):
            try:
                json_text(value).encode()
            except UnicodeEncodeError as error:
                raise self._malformed("half of a surrogate pair is no character") from error

    def _check_end(self) -> None:
        if self._state in {_State.ARRAY_START, _State.ARRAY_ITEM, _State.ARRAY_COMMA}:
            message = f"The file ends on line {self.line} inside its array."
            raise TruncatedError(Category.DATA_MALFORMED, message, line=self.line)

    def _malformed(self, what: str) -> FileError:
        line = self.line
        return FileError(Category.DATA_MALFORMED, f"Line {line} is not JSON that can be read: {what}.", line=line)

    def _cut(self) -> FileError:
        line = self.line
        message = f"The file ends inside the record that begins on line {line}."
        return TruncatedError(Category.DATA_MALFORMED, message, line=line)

    def _too_deep(self) -> FileError:
        line = self.line
        message = f"The record on line {line} is nested deeper than {MAX_DEPTH} levels."
        return FileError(Category.LIMIT_EXCEEDED, message, line=line)


_ARRAY_STEPS = {
    (_State.START, "["): _State.ARRAY_START,
    (_State.ARRAY_START, "]"): _State.ENDED,
    (_State.ARRAY_COMMA, ","): _State.ARRAY_ITEM,
    (_State.ARRAY_COMMA, "]"): _State.ENDED,
}


def _blank_end(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return position if match is None else match.end()


def _is_cut(error: json.JSONDecodeError, text: str) -> bool:
    """Whether more text might heal the error."""
    if error.msg.startswith("Unterminated string"):
        return True
    if error.pos < len(text) - _LONGEST_CUT:
        return False
    rest = text[error.pos :].strip()
    if rest in _NUMBER_TAILS:
        return True
    return error.msg.startswith("Invalid \\u") or any(literal.startswith(rest) for literal in _LITERALS)


def _is_deeper(value: Value, limit: int) -> bool:
    """Whether a value has more than `limit` levels, itself being the first; told level by level."""
    level: list[Value] = [value]
    for _ in range(limit):
        level = [
            below
            for outer in level
            for below in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[union-attr]
            if isinstance(below, (dict, list))
        ]
        if not level:
            return False
    return True
