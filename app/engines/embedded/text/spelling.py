"""Columns of text read as numbers, where each is spelled as its format spells numbers; Arrow's cast takes more."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from app.engines.embedded.text.fast_values import UncertainError, certain_doubles

_DIGITS = b"0123456789"
_OF_INTEGERS = frozenset(b"-")
_OF_DECIMALS = frozenset(b"-.")


def read_integers(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The integers; each is written as it would be written again.

    Raises:
        UncertainError: One is not.
    """
    numbers = _cast(texts, wanted)
    signs = _signs(texts)
    if not signs <= _OF_INTEGERS:
        raise UncertainError
    _refuse_zeros(texts, "0", more=None)
    if signs and pc.starts_with(texts, "-0").true_count:
        raise UncertainError
    return numbers


def read_doubles(texts: pa.Array, wanted: pa.DataType, pattern: str, *, bare_point: bool) -> pa.Array:
    """The doubles.

    Args:
        texts: What they are spelled as.
        wanted: The type.
        pattern: What each must match, as a regular expression.
        bare_point: Whether it lets a number begin with its point.

    Raises:
        UncertainError: A text does not match, or a double is not certain.
    """
    numbers = _cast(texts, wanted)
    signs = _signs(texts)
    if signs <= _OF_DECIMALS:
        # Of digits, points and minus signs the cast takes a number and, of what is none, only these.
        _refuse_zeros(texts, "0", more="0.")
        if b"-"[0] in signs:
            _refuse_zeros(texts, "-0", more="-0.")
        if b"."[0] in signs:
            _refuse_points(texts, bare_point=bare_point)
    elif pc.any(pc.invert(pc.match_substring_regex(texts, rf"\A(?:{pattern})\z"))).as_py():
        raise UncertainError
    return certain_doubles(numbers)


def _cast(texts: pa.Array, wanted: pa.DataType) -> pa.Array:
    try:
        return pc.cast(texts, wanted)
    except pa.ArrowInvalid as error:
        raise UncertainError from error


def characters(texts: pa.Array) -> bytes:
    """All texts, one behind the other; those of nulls are empty."""
    offsets, data = texts.buffers()[1:]
    if data is None or not len(texts):
        return b""
    ends = pa.Array.from_buffers(pa.int32(), texts.offset + len(texts) + 1, [None, offsets])
    start, stop = ends[texts.offset].as_py(), ends[-1].as_py()
    return bytes(data.slice(start, stop - start).to_pybytes()) if stop > start else b""


def _signs(texts: pa.Array) -> frozenset[int]:
    """All characters that are no digits."""
    return frozenset(characters(texts).translate(None, _DIGITS))


def _refuse_zeros(texts: pa.Array, zero: str, *, more: str | None) -> None:
    """A number that begins with a zero must be that, or go on with `more`."""
    begins = pc.starts_with(texts, zero).true_count
    if begins:
        allowed = pc.equal(texts, zero).true_count
        if more is not None:
            allowed += pc.starts_with(texts, more).true_count
        if begins != allowed:
            raise UncertainError


def _refuse_points(texts: pa.Array, *, bare_point: bool) -> None:
    if pc.ends_with(texts, ".").true_count:
        raise UncertainError
    if not bare_point and any(pc.starts_with(texts, begin).true_count for begin in (".", "-.")):
        raise UncertainError
