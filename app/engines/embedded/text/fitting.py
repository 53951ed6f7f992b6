"""How a value goes into a column exactly, or why it does not: the one meaning that every faster road must keep."""

from __future__ import annotations

import decimal
import math
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal as Number
from typing import TypeAlias

from app.domain.errors import Category, FileError
from app.domain.types import (
    BOOLEAN,
    DATE,
    DOUBLE,
    FLOAT,
    INT,
    LONG,
    STRING,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    DataType,
    Decimal,
    ListOf,
    MapOf,
    Struct,
    is_promotion,
    join,
)
from app.engines.embedded.decoding import DriftError
from app.engines.embedded.text.names import KeyPlans
from app.engines.embedded.text.temporal import Moment, parse_date, parse_time, parse_timestamp
from app.engines.embedded.text.values import (
    EXACT_DOUBLE,
    INT_MAX,
    LONG_DIGITS,
    LONG_MAX,
    Integer,
    Real,
    Value,
    json_text,
    natural_type,
    shown,
    shows_type,
)

Fit: TypeAlias = Callable[[Value], object]

ROUNDED = "A double would round it."
TOO_FINE = "A timestamp keeps six digits of a second; with --no-infer-timestamps a new column would keep the text."
_UUID_RE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Wide enough that no token that could fit a decimal of 38 digits is rounded on the way.
_EXACT = decimal.Context(prec=80, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[decimal.Inexact])


class UnfitError(Exception):
    """A value does not fit its column as the column is now. `path` names the column, outermost field first."""

    def __init__(self, value: Value, kind: DataType | None, reason: str = "") -> None:
        super().__init__(reason)
        self.value = value
        self.kind = kind
        self.reason = reason
        self.path: tuple[str, ...] = ()

    def below(self, name: str) -> UnfitError:
        """The same, seen from one level further out."""
        self.path = (name, *self.path)
        return self

    def at(self, line: int) -> FileError | DriftError:
        """What it means for the file: drift where the table could be made to hold the value, else a failure."""
        column = ".".join(self.path)
        if self.kind is None:
            return DriftError(f'Column "{column}" is new on line {line}.')
        if self.value is None:
            message = f'Column "{column}" is required; line {line} has no value for it.'
            return FileError(Category.SCHEMA_MISMATCH, message, line=line)
        message = f'Column "{column}" is {self.kind}; the value {shown(self.value)} on line {line} does not fit.'
        natural = natural_type(self.value, infer_timestamps=True)
        if is_promotion(self.kind, join(self.kind, natural)):
            return DriftError(message)
        return FileError(Category.SCHEMA_MISMATCH, f"{message} {self.reason}".rstrip(), line=line)


def fit_for(kind: DataType) -> Fit:
    """A function that turns a value (never None) into what Arrow stores for it, or raises UnfitError."""
    if isinstance(kind, Struct):
        return StructFit(kind).nested
    if isinstance(kind, ListOf):
        return _list_fit(kind)
    if isinstance(kind, MapOf):
        return _map_fit(kind)
    if isinstance(kind, Decimal):
        return _decimal_fit(kind)
    return _SCALARS.get(kind) or _nothing_fits(kind)


def _nothing_fits(kind: DataType) -> Fit:
    def fit(value: Value) -> object:
        raise UnfitError(value, kind)

    return fit


# --- scalars -------------------------------------------------------------------------------------------------------


def _fit_boolean(value: Value) -> object:
    if isinstance(value, bool):
        return value
    raise UnfitError(value, BOOLEAN)


def _integer_fit(kind: DataType, largest: int) -> Fit:
    def fit(value: Value) -> object:
        # The length is looked at first: Python refuses to read integers of some thousand digits.
        if type(value) is Integer and len(value) <= LONG_DIGITS + 1:
            number = int(value)
            if -largest - 1 <= number <= largest:
                return number
        raise UnfitError(value, kind)

    return fit


def _fit_double(value: Value) -> object:
    return _exact_double(value, DOUBLE)


def _exact_double(value: Value, kind: DataType) -> float:
    if type(value) is Real or type(value) is Integer:
        number = float(value)
        if type(value) is Integer and not _is_exact(value):
            raise UnfitError(value, kind, ROUNDED)
        if math.isfinite(number):
            return number
    raise UnfitError(value, kind)


def _is_exact(token: str) -> bool:
    return len(token) <= LONG_DIGITS and -EXACT_DOUBLE <= int(token) <= EXACT_DOUBLE


def _fit_float(value: Value) -> object:
    number = _exact_double(value, FLOAT)
    try:
        same = struct.unpack("f", struct.pack("f", number))[0] == number
    except OverflowError as error:
        raise UnfitError(value, FLOAT) from error
    if not same:
        raise UnfitError(value, FLOAT)
    return number


def _decimal_fit(kind: Decimal) -> Fit:
    limit = Number(10) ** kind.precision
    shift = Number(kind.scale)
    unit = Number(1).scaleb(-kind.scale)

    def fit(value: Value) -> object:
        if type(value) is not Real and type(value) is not Integer:
            raise UnfitError(value, kind)
        try:
            number = _EXACT.create_decimal(value).quantize(unit, context=_EXACT)
        except decimal.DecimalException as error:
            raise UnfitError(value, kind) from error
        # Not abs(): it rounds to the digits of the thread's context.
        if number.copy_abs().scaleb(shift, context=_EXACT) >= limit:
            raise UnfitError(value, kind)
        return number

    return fit


def _fit_date(value: Value) -> object:
    days = parse_date(value) if type(value) is str else None
    if days is None:
        raise UnfitError(value, DATE)
    return days


def _fit_timestamp(value: Value) -> object:
    return _moment(value, TIMESTAMP, zoned=False).micros


def _fit_timestamptz(value: Value) -> object:
    return _moment(value, TIMESTAMPTZ, zoned=True).micros


def _moment(value: Value, kind: DataType, *, zoned: bool) -> Moment:
    moment = parse_timestamp(value) if type(value) is str else None
    if moment is None or moment.zoned is not zoned:
        raise UnfitError(value, kind)
    if not moment.exact:
        raise UnfitError(value, kind, TOO_FINE)
    return moment


def _fit_time(value: Value) -> object:
    clock = parse_time(value) if type(value) is str else None
    if clock is None or not clock[1]:
        raise UnfitError(value, TIME)
    return clock[0]


def _fit_uuid(value: Value) -> object:
    if type(value) is str and _UUID_RE.fullmatch(value):
        return uuid.UUID(value).bytes
    raise UnfitError(value, UUID)


def _fit_string(value: Value) -> object:
    return str(value) if isinstance(value, str) else json_text(value)


_SCALARS: dict[DataType, Fit] = {
    BOOLEAN: _fit_boolean,
    INT: _integer_fit(INT, INT_MAX),
    LONG: _integer_fit(LONG, LONG_MAX),
    FLOAT: _fit_float,
    DOUBLE: _fit_double,
    DATE: _fit_date,
    TIME: _fit_time,
    TIMESTAMP: _fit_timestamp,
    TIMESTAMPTZ: _fit_timestamptz,
    UUID: _fit_uuid,
    STRING: _fit_string,
}


# --- nested --------------------------------------------------------------------------------------------------------


def _nullable(kind: DataType, *, required: bool) -> Fit:
    inner = fit_for(kind)

    def fit(value: Value) -> object:
        if value is None:
            if required:
                raise UnfitError(None, kind)
            return None
        return inner(value)

    return fit


def _list_fit(kind: ListOf) -> Fit:
    element = _nullable(kind.element, required=kind.element_required)

    def fit(value: Value) -> object:
        if not isinstance(value, list):
            raise UnfitError(value, kind)
        try:
            return [element(v) for v in value]
        except UnfitError as error:
            raise error.below("element") from None

    return fit


def _map_fit(kind: MapOf) -> Fit:
    inner = _nullable(kind.value, required=kind.value_required)

    def fit(value: Value) -> object:
        if kind.key != STRING or not isinstance(value, dict):
            raise UnfitError(value, kind)
        try:
            return [(k, inner(v)) for k, v in value.items()]
        except UnfitError as error:
            raise error.below("value") from None

    return fit


class StructFit:
    """Turns objects into rows of one struct; keys are matched to fields without regard to case."""

    def __init__(self, kind: Struct, *, top: bool = False) -> None:
        """Prepare for `kind`; `top` says that it is a whole table, where names of our own are taken."""
        self._kind = kind
        self._fits = [_nullable(f.type, required=f.required) for f in kind.fields]
        self._plans = KeyPlans(kind, top=top)

    def row(self, record: dict[str, Value]) -> list[object]:
        """The values of a record in field order.

        Raises:
            UnfitError: A value does not fit, a required one is missing, or a key that shows a type is new.
            NameClashError: Keys of the record differ in case only, or bear a name that is taken.
        """
        fields, fits = self._kind.fields, self._fits
        row: list[object] = [None] * len(fits)
        plan = self._plans.plan(tuple(record))
        for key, place in plan.steps:
            value = record[key]
            if place is None:
                if shows_type(value):
                    raise UnfitError(value, None).below(key)
            else:
                try:
                    row[place] = fits[place](value)
                except UnfitError as error:
                    raise error.below(fields[place].name) from None
        if plan.missing is not None:
            raise UnfitError(None, plan.missing.type).below(plan.missing.name)
        return row

    def nested(self, value: Value) -> object:
        """The same of a value inside a record, as a dict by the table's names."""
        if not isinstance(value, dict):
            raise UnfitError(value, self._kind)
        return dict(zip(self._names, self.row(value), strict=True))

    @property
    def _names(self) -> list[str]:
        return [f.name for f in self._kind.fields]
