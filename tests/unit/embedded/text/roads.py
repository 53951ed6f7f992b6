"""What tests of both roads have in common."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pytest

from app.domain.errors import FileError
from app.domain.formats import FileFormat, FormatOptions
from app.domain.types import EMPTY, Struct
from app.engines.embedded.arrow_types import arrow_schema
from app.engines.embedded.decoding import Decoded, DriftError, TextDecoder
from app.engines.embedded.text import csv_decoder, json_decoder, pieces
from app.engines.embedded.text.csv_decoder import CsvDecoder
from app.engines.embedded.text.json_decoder import JsonDecoder

JSON = FormatOptions(FileFormat.JSON)
CSV = FormatOptions(FileFormat.CSV)


def decoder(options: FormatOptions, schema: Struct = EMPTY, *, fast: bool = True) -> JsonDecoder | CsvDecoder:
    made = CsvDecoder if options.format is FileFormat.CSV else JsonDecoder
    return made(options, schema, fast=fast)


def outcome(result: int | FileError | DriftError) -> object:
    if isinstance(result, FileError):
        return (result.category.value, result.line, result.message)
    return "drift" if isinstance(result, DriftError) else result


def contents(table: pa.Table) -> str:
    """The rows as text: equality is too kind (-0.0); moments as numbers, as Python has none before year 1."""
    table.validate(full=True)
    plain = pa.schema([pa.field(f.name, _countable(f.type)) for f in table.schema])
    return repr(table.cast(plain).to_pylist())


def _countable(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _countable(f.type)) for f in kind.fields])
    return pa.list_(_countable(kind.value_type)) if pa.types.is_list(kind) else kind


def shown(decoded: Decoded) -> tuple[list[object], str]:
    """Everything about a result that matters."""
    return [outcome(r) for r in decoded.rows], contents(decoded.table)


def stream(made: TextDecoder, chunks: Iterable[bytes], schema: Struct) -> tuple[object, str]:
    """The same of a stream."""
    empty = arrow_schema(schema).empty_table()
    try:
        table = pa.concat_tables([empty, *made.decode_stream(chunks)])
    except (FileError, DriftError) as error:
        return outcome(error), contents(empty)
    return table.num_rows, contents(table)


def observed(made: TextDecoder, chunks: Iterable[bytes]) -> object:
    try:
        return made.observe(chunks)
    except FileError as error:
        return outcome(error)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def use_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have texts read in pieces so small that a short file has many."""
    for module in (json_decoder, csv_decoder):
        monkeypatch.setattr(module, "PIECE_BYTES", 40)
    monkeypatch.setattr(json_decoder, "EXACT_BYTES", 16)
    monkeypatch.setattr(csv_decoder, "LOOK_BYTES", 16)
    monkeypatch.setattr(pieces, "LOOK_BYTES", 40)
    monkeypatch.setattr(pieces, "FIRST_LOOK_BYTES", 20)
