"""Which columns of a data file get a dictionary: those whose values come again often enough to pay for it.

A dictionary that overflows costs the time to build it and the room of both encodings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

SAMPLE_ROWS = 16 * 1024
# Rows that follow each other are often alike, so they are looked at in several places.
_PLACES = 4
# Beyond this the Parquet writer gives a dictionary up.
_MAX_DICTIONARY_BYTES = 1024 * 1024
# So often a value has to come, on average.
_LEAST_REPEATS = 4
_TEXT_LENGTH_BYTES = 4


def dictionary_columns(table: pa.Table, group_rows: int) -> list[str]:
    """The paths, in Parquet's words, of the columns that are worth a dictionary.

    Args:
        table: The first rows of a data file.
        group_rows: How many of them share a dictionary.
    """
    sample = _sample(table)
    scale = min(group_rows, table.num_rows) / max(1, sample.num_rows)
    return [
        path
        for field, column in zip(sample.schema, sample.columns, strict=True)
        for path, leaf in _leaves(field.name, column.combine_chunks())
        if _pays(leaf, scale)
    ]


def _sample(table: pa.Table) -> pa.Table:
    if table.num_rows <= SAMPLE_ROWS:
        return table
    length = SAMPLE_ROWS // _PLACES
    step = (table.num_rows - length) // (_PLACES - 1)
    return pa.concat_tables([table.slice(place * step, length) for place in range(_PLACES)])


def _leaves(path: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The columns of a file that hold the values of `array`."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pt.is_struct(array.type):
        for field, child in zip(array.type.fields, array.flatten(), strict=True):
            yield from _leaves(f"{path}.{field.name}", child)
    elif pt.is_map(array.type):
        start, stop = (array.offsets[place].as_py() for place in (0, -1))
        for name, child in (("key", array.keys), ("value", array.items)):
            yield from _leaves(f"{path}.key_value.{name}", child.slice(start, stop - start))
    elif pt.is_list(array.type):
        yield from _leaves(f"{path}.list.element", array.flatten())
    else:
        yield path, array


def _pays(array: pa.Array, scale: float) -> bool:
    """Whether values like these, `scale` times as many, are worth a dictionary."""
    values = len(array) - array.null_count
    if pt.is_dictionary(array.type) or not values:
        return True
    distinct = distinct_among(values * scale, values, pc.count_distinct(array).as_py())
    return distinct * _LEAST_REPEATS <= values * scale and distinct * _width(array, values) <= _MAX_DICTIONARY_BYTES


def _width(array: pa.Array, values: int) -> float:
    if pt.is_string(array.type) or pt.is_binary(array.type):
        return float(pc.sum(pc.binary_length(array)).as_py()) / values + _TEXT_LENGTH_BYTES
    return float(array.type.bit_width) / 8


def distinct_among(total: float, seen: int, distinct: int) -> float:
    """About how many different values `total` have, of which `seen` had `distinct`, when each is as likely as others.

    So many that as many drawn would show the number seen: it has no closed form, and is found by halving.
    """
    if seen >= total:
        return distinct
    low, high = float(distinct), float(total)
    while high - low > 1 + low / 100:
        middle = (low + high) / 2
        if middle * -math.expm1(-seen / middle) < distinct:
            low = middle
        else:
            high = middle
    return low
