"""CSV records as records by name, their text read as the values it spells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from app.domain.errors import Category, FileError
from app.domain.types import STRING, Struct
from app.engines.embedded.text.csv_grammar import CsvGrammar
from app.engines.embedded.text.csv_records import CsvReader, Quoted
from app.engines.embedded.text.names import NameClashError, check_taken
from app.engines.embedded.text.values import Integer, Real, Value

INTEGER = r"-?(?:0|[1-9][0-9]*)"
REAL = r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_INTEGER_RE = re.compile(INTEGER)
_REAL_RE = re.compile(REAL)
_NUMBER_SIGNS = frozenset("-.0123456789")


def column_names(fields: Sequence[str]) -> tuple[str, ...]:
    """The names that a header gives: an empty one is `column_N`, a doubled one gets `_2`, then `_3`."""
    names: list[str] = []
    taken: set[str] = set()
    for number, field in enumerate(fields, 1):
        plain = str(field) or f"column_{number}"
        name, count = plain, 1
        while name.lower() in taken:
            count += 1
            name = f"{plain}_{count}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)


def read_value(text: str) -> Value:
    """What a text says in a column that is not one of text; nothing says nothing."""
    if not text:
        return None
    if text[0] in _NUMBER_SIGNS:
        if _INTEGER_RE.fullmatch(text):
            return Integer(text)
        if _REAL_RE.fullmatch(text):
            return Real(text)
    lowered = text.lower()
    if lowered in {"true", "false"}:
        return lowered == "true"
    return str(text)


class CsvTable:
    """The records of one file by the names of its header."""

    def __init__(self, grammar: CsvGrammar, names: tuple[str, ...], schema: Struct) -> None:
        """Prepare for a file with columns `names`; columns that are text in `schema` keep theirs."""
        self._nulls = grammar.null_values
        self._names = names
        known = [schema.find(name) for name in names]
        self._is_text = [field is not None and field.type == STRING for field in known]

    def records(
        self, reader: CsvReader, piece: bytes, *, last: bool = False, flush: bool = False
    ) -> Iterator[dict[str, Value]]:
        """Yield the records that end in `piece`; see the reader.

        Raises:
            FileError: A record cannot be read, or has another number of fields than the header.
        """
        count = len(self._names)
        for fields in reader.feed(piece, last=last, flush=flush):
            if len(fields) != count:
                line = reader.line
                message = f"Line {line} has {len(fields)} fields; {count} were expected."
                raise FileError(Category.DATA_MALFORMED, message, line=line)
            yield {
                name: self._value(field, is_text=is_text)
                for name, field, is_text in zip(self._names, fields, self._is_text, strict=True)
            }

    def _value(self, field: str, *, is_text: bool) -> Value:
        if type(field) is not Quoted and field in self._nulls:
            return None
        return str(field) if is_text else read_value(field)


def check_names(names: Sequence[str], line: int) -> None:
    """Raise FileError when a column of the file bears the name of one of ours."""
    try:
        for name in names:
            check_taken(name)
    except NameClashError as error:
        raise error.at(line) from error
