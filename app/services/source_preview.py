"""A preview: what the files of a source look like as a table. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.files import SourceFile
from app.domain.ports import Engine, Reading
from app.domain.sampling import RowSampler
from app.domain.system_columns import data_columns
from app.domain.types import Struct
from app.services.batch_loading import new_table_schema
from app.services.preflight import LoadRequest, OpenSource
from app.services.source_looks import SourceLook, look

SHOWN_ROWS = 20
SHOWN_VALUES = 5
# Rows are taken from so many files, at even distances.
SHOWN_FILES = 3


@dataclass(frozen=True)
class PreviewPorts:
    """What a preview works with."""

    open_source: OpenSource
    keep_out: tuple[str, ...]
    engine: Engine
    sampler: RowSampler


@dataclass(frozen=True)
class PreviewColumn:
    """A column as the table would have it, with some of its values as JSON has them."""

    name: str
    type: str
    samples: tuple[Any, ...]


@dataclass(frozen=True)
class SourcePreview:
    """What is in a source.

    Args:
        complete: Whether `files` and `stored_bytes` count all of it.
        row_estimate: Rows of all files; None where none could be read.
        warnings: What a person should know before a load, files that cannot be read among it.
    """

    source_type: str
    format: str
    files: int
    stored_bytes: int
    complete: bool
    row_estimate: int | None
    columns: tuple[PreviewColumn, ...]
    rows: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]


def preview_source(ports: PreviewPorts, request: LoadRequest) -> SourcePreview:
    """Show what a load of `request` would find.

    Raises:
        AutoloaderError: As the load itself would before it reads a file.
    """
    seen = look(request, ports.open_source, ports.keep_out, datetime.now(UTC))
    if not seen.kept:
        return _preview(seen, (), (), 0 if seen.complete else None)
    reading = Reading(seen.prepared.source.reader(), seen.prepared.definition.options)
    inferred = ports.engine.infer(seen.kept, reading)
    schema = data_columns(new_table_schema(inferred.schema, provenance=False))
    sample = ports.sampler.sample_rows(spread(seen.kept, SHOWN_FILES), reading, schema, SHOWN_ROWS)
    failed = {f.key: f.message for f in (*inferred.failed, *sample.failed)}
    seen.warnings.extend(inferred.warnings)
    seen.warnings.extend(f"{key} cannot be read: {message}" for key, message in list(failed.items())[:SHOWN_ROWS])
    return _preview(seen, _columns(schema, sample.rows), sample.rows, sample.estimate(seen.stored_bytes))


def spread(files: Sequence[SourceFile], count: int) -> list[SourceFile]:
    """Some of the files, at even distances, the first and the last among them."""
    if len(files) <= count:
        return list(files)
    return [files[round(i * (len(files) - 1) / (count - 1))] for i in range(count)]


def _columns(schema: Struct, rows: Sequence[Mapping[str, Any]]) -> tuple[PreviewColumn, ...]:
    return tuple(PreviewColumn(f.name, str(f.type), _samples(f.name, rows)) for f in schema.fields)


def _samples(name: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    """The first different values of a column."""
    found: list[Any] = []
    for row in rows:
        value = row.get(name)
        if value is not None and value not in found:
            found.append(value)
        if len(found) == SHOWN_VALUES:
            break
    return tuple(found)


def _preview(
    seen: SourceLook,
    columns: tuple[PreviewColumn, ...],
    rows: tuple[Mapping[str, Any], ...],
    row_estimate: int | None,
) -> SourcePreview:
    return SourcePreview(
        source_type=seen.source_type,
        format=seen.prepared.definition.options.format.value,
        files=seen.files,
        stored_bytes=seen.stored_bytes,
        complete=seen.complete,
        row_estimate=row_estimate,
        columns=columns,
        rows=rows,
        warnings=tuple(dict.fromkeys(seen.warnings)),
    )
