"""The same buffers under another type: names, field ids and extension types put on, no value touched."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt


def clothe(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """`array` with exactly the type `wanted`, which differs from its own only in what values do not show.

    Two types are equal to Arrow although their children differ in metadata, so a cast would put no field ids on.
    """
    if not pt.is_nested(wanted):
        return array if array.type == wanted else pa.ExtensionArray.from_storage(wanted, array)
    array = from_zero(array)
    if pt.is_struct(wanted):
        children = [clothe(array.field(i), wanted.field(i).type) for i in range(wanted.num_fields)]
        return nest(array, wanted, children)
    if pt.is_map(wanted):
        pairs = pa.struct([wanted.key_field, wanted.item_field])
        keys, items = clothe(array.keys, wanted.key_type), clothe(array.items, wanted.item_type)
        entries = pa.Array.from_buffers(pairs, len(keys), [None], children=[keys, items])
        return nest(array, wanted, [entries])
    return nest(array, wanted, [clothe(array.values, wanted.value_type)])


def nest(array: pa.Array, wanted: pa.DataType, children: list[pa.Array]) -> pa.Array:
    """A nested array of type `wanted` with the validity and offsets of `array`, which begins at offset 0."""
    own = array.buffers()[: 1 if pt.is_struct(wanted) else 2]
    return pa.Array.from_buffers(wanted, len(array), own, array.null_count, children=children)


def from_zero(array: pa.Array) -> pa.Array:
    """The array at offset 0, so that its buffers and its children count alike."""
    return array if array.offset == 0 else pa.concat_arrays([array, array.slice(0, 0)])
