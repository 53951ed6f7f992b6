"""The floor with pyarrow's parsers: read, decompress, parse, encode, with a process a core. No catalog, no ledger."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import common
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.json as pjson
import pyarrow.parquet as pq
from isal import igzip

PIECE_BYTES = 64 << 20
TIME = pa.timestamp("us", "UTC")


def main() -> None:
    """Write the files' rows as Parquet."""
    task = common.task()
    cores = len(os.sched_getaffinity(0))
    (task.home / "out").mkdir(exist_ok=True)
    # Forked: what is imported is there at once. So nothing may start a thread before, as a store does.
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write, args=(task, i, cores)) for i in range(cores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(any(worker.exitcode for worker in workers))


def cut(task: common.Task):  # noqa: ANN201 - pieces: name, first byte, end
    """The files; a large one that is text in pieces of whole lines. The end is None where the piece is a whole file."""
    for name in common.names(task):
        size = 0 if task.is_remote or name.endswith(".gz") or task.kind != "ndjson" else Path(name).stat().st_size
        if size <= PIECE_BYTES:
            yield name, 0, None
            continue
        with Path(name).open("rb") as file:
            start = 0
            while start < size:
                file.seek(min(start + PIECE_BYTES, size))
                file.readline()
                yield name, start, file.tell()
                start = file.tell()


def write(task: common.Task, number: int, cores: int) -> None:
    """Write one core's share."""
    pieces = list(cut(task))[number::cores]
    schema = schema_of(task)
    writer = None
    for text in texts(task, pieces):
        rows = parse(task.kind, text, schema)
        if writer is None:
            schema = schema or rows.schema
            writer = pq.ParquetWriter(task.home / "out" / f"{number}.parquet", rows.schema, compression="zstd")
        writer.write_table(rows)
    if writer is not None:
        writer.close()


def texts(task: common.Task, pieces: list[tuple[str, int, int | None]]):  # noqa: ANN201 - buffers
    """The pieces' texts; small files in one."""
    joined: list[bytes] = []
    for data in loaded(task, pieces):
        if len(data) > PIECE_BYTES // 64 or task.kind != "ndjson":
            yield data
        else:
            joined.append(data)
    if joined:
        yield b"".join(joined)


def loaded(task: common.Task, pieces: list[tuple[str, int, int | None]]):  # noqa: ANN201 - buffers
    """The pieces' bytes, decompressed."""
    if task.is_remote:
        stored = common.contents(task, [name for name, _, _ in pieces])
    else:
        stored = (part(*piece) for piece in pieces)
    for (name, _, _), data in zip(pieces, stored, strict=True):
        yield igzip.decompress(data) if name.endswith(".gz") else data


def part(name: str, start: int, end: int | None) -> bytes:
    """Bytes of a file."""
    with Path(name).open("rb") as file:
        file.seek(start)
        return file.read(-1 if end is None else end - start)


def schema_of(task: common.Task) -> pa.Schema | None:
    """The columns, from the example; a floor knows its schema."""
    if task.example is None or task.kind == "parquet":
        return None
    data = task.example.read_bytes()
    data = igzip.decompress(data) if task.example.suffix == ".gz" else data
    return parse(task.kind, data, pa.schema([("happened_at", TIME)])).schema


def parse(kind: str, text: bytes, schema: pa.Schema | None) -> pa.Table:
    """One table."""
    if kind == "parquet":
        return pq.read_table(pa.BufferReader(text), use_threads=False)
    if kind == "csv":
        types = None if schema is None else {field.name: field.type for field in schema}
        convert = pcsv.ConvertOptions(column_types=types, strings_can_be_null=True)
        reading = pcsv.ReadOptions(use_threads=False, block_size=8 << 20)
        return pcsv.read_csv(pa.BufferReader(text), reading, convert_options=convert)
    options = pjson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer")
    reading = pjson.ReadOptions(use_threads=False, block_size=8 << 20)
    return pjson.read_json(pa.BufferReader(text), reading, options)


if __name__ == "__main__":
    main()
