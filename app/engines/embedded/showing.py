"""Carries out a show job inside a child process: the first rows of a file, in the form that JSON has for them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import pyarrow as pa

from app.domain.errors import FileError, FileFailure
from app.domain.evolution import apply_changes, plan_changes
from app.domain.formats import FileFormat
from app.domain.sampling import SampledRows
from app.domain.types import Struct
from app.engines.embedded.codecs import decompress
from app.engines.embedded.decoding import DriftError
from app.engines.embedded.drifting import check_changes
from app.engines.embedded.messages import Beat, ShowJob, Shown, Tell
from app.engines.embedded.parquet import ParquetSource, StoredFile
from app.engines.embedded.sampling import cut_head
from app.engines.embedded.stored import stream_stored
from app.engines.embedded.text import text_decoder

# Of a text file so much is read, decompressed.
SHOWN_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_TEXT = 1_000
MAX_ITEMS = 100


def show(job: ShowJob, tell: Tell) -> Shown:
    """The first rows of the job's file.

    Raises:
        MemoryError: The process may not have so much.
    """
    look = _parquet if job.reading.options.format is FileFormat.PARQUET else _text
    try:
        return Shown(look(job, tell))
    except FileError as error:
        return Shown(SampledRows(failed=(FileFailure.of(job.file.key, job.file.version, error),)))


def _parquet(job: ShowJob, tell: Tell) -> SampledRows:
    source = ParquetSource(StoredFile(job.reading.reader, job.file))
    tell(Beat())
    changes = plan_changes(job.schema, source.schema)
    check_changes(job.schema, changes, source.schema)
    tables = source.tables(apply_changes(job.schema, changes))
    rows: list[dict[str, Any]] = []
    while len(rows) < job.limit and (table := next(tables, None)) is not None:
        rows.extend(_rows(table, job.limit - len(rows)))
    return SampledRows(tuple(rows), source.rows, job.file.size_bytes)


def _text(job: ShowJob, tell: Tell) -> SampledRows:
    read_bytes = 0

    def beat(size: int) -> None:
        nonlocal read_bytes
        read_bytes += size
        tell(Beat(stored_bytes=size))

    # In small pieces: how much was read for what came of it tells how many rows there are.
    stored = stream_stored(job.reading.reader, job.file, beat, chunk_bytes=CHUNK_BYTES)
    head, ended = _take(decompress(stored, job.reading.options.compression))
    document = head if ended else cut_head(head, job.reading.options)
    if not document:
        return SampledRows()
    table = _decoded(job, document)
    of_it = job.file.size_bytes if ended else max(1, round(read_bytes * len(document) / len(head)))
    return SampledRows(tuple(_rows(table, job.limit)), table.num_rows, of_it)


def _take(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    taken = bytearray()
    for piece in pieces:
        taken += piece
        if len(taken) > SHOWN_BYTES:
            return bytes(taken), False
    return bytes(taken), True


def _decoded(job: ShowJob, document: bytes) -> pa.Table:
    decoder = text_decoder(job.reading.options, job.schema)
    decoded = decoder.decode_group([document])
    if isinstance(decoded.rows[0], DriftError):
        # This part shows more than the sample did that the schema is from.
        wider = _widened(job.schema, decoder.observe([document]))
        decoded = text_decoder(job.reading.options, wider).decode_group([document])
    outcome = decoded.rows[0]
    if isinstance(outcome, FileError):
        raise outcome
    return decoded.table


def _widened(schema: Struct, seen: Struct) -> Struct:
    return apply_changes(schema, plan_changes(schema, seen))


def _rows(table: pa.Table, limit: int) -> list[dict[str, Any]]:
    return [plain(row) for row in table.slice(0, limit).to_pylist()]


def plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - any value of Arrow, any JSON
    """The value as JSON can carry it; long ones end in an ellipsis."""
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in islice(value.items(), MAX_ITEMS * MAX_ITEMS)}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in islice(value, MAX_ITEMS)] + (["…"] if len(value) > MAX_ITEMS else [])
    if isinstance(value, bytes):
        return _cut(base64.b64encode(value[:MAX_TEXT]).decode())
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, str | Decimal | UUID | timedelta):
        return _cut(str(value))
    raise TypeError(f"{type(value).__name__} has no JSON form.")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
