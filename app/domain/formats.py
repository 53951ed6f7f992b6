"""The formats of files and how they are told apart by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass

DEFAULT_SAMPLE_BYTES = 64 * 1024 * 1024
DEFAULT_MAX_COLUMNS = 10_000


class FileFormat(enum.StrEnum):
    """What is inside a file."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class FormatOptions:
    """How files are read. Defaults are the contract's.

    `compression` is auto (known by content), none, gzip, zstd or bz2. `encoding` None means UTF-8, or what a byte
    order mark says. `null_values` are CSV texts that mean NULL when they are not quoted.
    """

    format: FileFormat
    header: bool = True
    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    encoding: str | None = None
    null_values: tuple[str, ...] = ("",)
    skip_rows: int = 0
    compression: str = "auto"
    sample_bytes: int = DEFAULT_SAMPLE_BYTES
    infer_timestamps: bool = True
    max_columns: int = DEFAULT_MAX_COLUMNS


COMPRESSION_SUFFIXES = frozenset({"gz", "gzip", "zst", "zstd", "bz2"})
_BY_SUFFIX = {
    "json": FileFormat.JSON,
    "ndjson": FileFormat.JSON,
    "jsonl": FileFormat.JSON,
    "csv": FileFormat.CSV,
    "tsv": FileFormat.CSV,
    "parquet": FileFormat.PARQUET,
    "pq": FileFormat.PARQUET,
}


def format_by_name(name: str) -> FileFormat | None:
    """The format that a file's name tells, compression suffixes aside; None where it tells none."""
    parts = name.rsplit("/", 1)[-1].lower().split(".")
    while len(parts) > 1 and parts[-1] in COMPRESSION_SUFFIXES:
        parts.pop()
    return _BY_SUFFIX.get(parts[-1]) if len(parts) > 1 else None


def is_tab_separated(name: str) -> bool:
    """Whether a file's name says that tabs separate its fields."""
    parts = name.rsplit("/", 1)[-1].lower().split(".")
    return "tsv" in parts[1:]
