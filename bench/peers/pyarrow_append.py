"""pyarrow reads the files, pyiceberg appends them: many small files as one buffer, others one by one in one commit."""

from __future__ import annotations

import common
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq

SMALL_BYTES = 1_000_000
TIME = pa.timestamp("us", "UTC")


def main() -> None:
    """Load."""
    task = common.task()
    table, catalog = common.find_table(task.home)
    schema = None if table is None else plain(table.schema().as_arrow())
    data = pa.concat_tables(read(task, schema), promote_options="permissive").combine_chunks()
    if table is None:
        table = common.make_table(catalog, data.schema)
    table.append(data)
    common.done(table.metadata_location)


def read(task: common.Task, schema: pa.Schema | None) -> list[pa.Table]:
    """The files as tables."""
    wanted = common.names(task)
    if task.kind == "ndjson" and task.is_remote | (len(wanted) > 100):  # noqa: PLR2004
        pieces = [inflated(name, data) for name, data in zip(wanted, common.contents(task, wanted), strict=True)]
        groups = [b"".join(pieces)] if sum(map(len, pieces)) < SMALL_BYTES * len(pieces) else pieces
        return [parse(task.kind, pa.BufferReader(piece), schema) for piece in groups]
    if task.is_remote:
        return [parse(task.kind, pa.BufferReader(data), schema) for data in common.contents(task, wanted)]
    return [parse(task.kind, pa.input_stream(name), schema) for name in wanted]


def inflated(name: str, data: bytes) -> bytes:
    """The text of a file."""
    if not name.endswith(".gz"):
        return data
    return pa.CompressedInputStream(pa.BufferReader(data), "gzip").read()


def parse(kind: str, stream: pa.NativeFile, schema: pa.Schema | None) -> pa.Table:
    """One table of one stream."""
    if kind == "parquet":
        return pq.read_table(pa.BufferReader(stream.read()))
    if kind == "csv":
        types = {"happened_at": TIME} if schema is None else {field.name: field.type for field in schema}
        return pcsv.read_csv(stream, convert_options=pcsv.ConvertOptions(column_types=types, strings_can_be_null=True))
    wanted = pa.schema([("happened_at", TIME)]) if schema is None else schema
    options = pjson.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="infer")
    return pjson.read_json(stream, pjson.ReadOptions(block_size=8 << 20), options)


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema without field ids, and with the types that the parsers know."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without field ids."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in kind])
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) else kind


if __name__ == "__main__":
    main()
