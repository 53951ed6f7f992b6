"""Values as a file wrote them: numbers keep the text of their token, so that nothing is rounded before its time."""

from __future__ import annotations

import math
from json.encoder import encode_basestring
from typing import TypeAlias

from app.domain.types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    EMPTY,
    LONG,
    MAX_DECIMAL_DIGITS,
    STRING,
    TIMESTAMP,
    TIMESTAMPTZ,
    UNKNOWN,
    DataType,
    Decimal,
    ListOf,
)
from app.engines.embedded.text.temporal import parse_date, parse_timestamp

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
LONG_DIGITS = 19
# Beyond it, not every integer has a double of its own.
EXACT_DOUBLE = 2**53
# The shortest text of a date and of a date with a time; shorter text is spared the look.
_DATE_LENGTH = 10
_SHOWN_CHARACTERS = 80


class Integer(str):
    """The token of a number without fraction and exponent, as it was written."""

    __slots__ = ()


class Real(str):
    """The token of a number with a fraction or an exponent, as it was written."""

    __slots__ = ()


Value: TypeAlias = "bool | str | list[Value] | dict[str, Value] | None"


def natural_type(value: Value, *, infer_timestamps: bool) -> DataType:
    """The type a column would have if `value` were all that is known of it; of a container only that it is one."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, str):
        return _natural_scalar(value, infer_timestamps=infer_timestamps)
    return EMPTY if isinstance(value, dict) else ListOf(UNKNOWN)


def _natural_scalar(value: str, *, infer_timestamps: bool) -> DataType:
    kind = type(value)
    if kind is Integer:
        return natural_integer(value)
    if kind is Real:
        return DOUBLE if math.isfinite(float(value)) else STRING
    return natural_text(value) if infer_timestamps else STRING


def natural_integer(token: str) -> DataType:
    """Long, a decimal, or string: the first that holds every digit."""
    digits = len(token) - token.startswith("-")
    if digits < LONG_DIGITS:
        return LONG
    if digits > MAX_DECIMAL_DIGITS:
        return STRING
    return LONG if -LONG_MAX - 1 <= int(token) <= LONG_MAX else Decimal(MAX_DECIMAL_DIGITS, 0)


def natural_text(text: str) -> DataType:
    """Date, timestamp with or without a zone, or string."""
    if len(text) < _DATE_LENGTH or text[4] != "-":
        return STRING
    if len(text) == _DATE_LENGTH:
        return STRING if parse_date(text) is None else DATE
    moment = parse_timestamp(text)
    if moment is None:
        return STRING
    return TIMESTAMPTZ if moment.zoned else TIMESTAMP


def json_text(value: Value) -> str:
    """Compact JSON of a value: numbers as they were written, text beyond ASCII kept."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value) if type(value) in {Integer, Real} else encode_basestring(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring(k)}:{json_text(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(json_text(v) for v in value) + "]"


def shown(value: Value) -> str:
    """A value for a message: as it stands in the file, cut after some eighty characters."""
    text = value if isinstance(value, str) and type(value) is not str else json_text(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def shows_type(value: Value) -> bool:
    """Whether a value says anything about its column: null, `{}`, `[]` and what holds only those do not."""
    if isinstance(value, dict):
        return any(shows_type(v) for v in value.values())
    if isinstance(value, list):
        return any(shows_type(v) for v in value)
    return value is not None
