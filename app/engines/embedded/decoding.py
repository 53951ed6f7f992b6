"""What a decoder promises to the part of the engine that feeds it and writes what it yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from app.domain.errors import FileError
from app.domain.types import EMPTY, Struct


class DriftError(Exception):
    """The data holds new columns or wider types: it does not fit the schema it was to be decoded under."""


@dataclass(frozen=True)
class Decoded:
    """Rows of several files, decoded together.

    `table` has the data columns of the schema, in its order and with its exact Arrow types, the files' rows one file
    after the other. `rows[i]` is the number of rows of file i, or the error that keeps it out (then it has none in
    `table`).
    """

    table: pa.Table
    rows: tuple[int | FileError | DriftError, ...]


@dataclass
class Excerpt:
    """A run of a file's lines that is read by itself, the lines before it being whole records.

    `first_bytes` gives the start of the file, where what all of it has in common is told; None: the run begins there.
    `line` is the number of its first line. Whoever reads the run sets `next_line` once it has come to its end between
    two records: where it does not go `to_end`, only then what follows can be read by itself too. The bytes of a run
    from further on are UTF-8.
    """

    first_bytes: Callable[[], Iterable[bytes]] | None = None
    line: int = 1
    to_end: bool = True
    next_line: int | None = None


class TextDecoder(Protocol):
    """Decodes files of one text format under one schema. Made once for an order, used for all its files.

    Input is decompressed, in whatever encoding the files have. Made with the data columns of the table (with ids).
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of the columns that were observed so far, a sentence each."""
        ...

    def decode_group(self, files: Sequence[bytes]) -> Decoded:
        """Decode whole small files together; one that cannot be decoded does not hurt the others."""
        ...

    def decode_stream(self, chunks: Iterable[bytes], excerpt: Excerpt | None = None) -> Iterator[pa.Table]:
        """Decode one large file, or an excerpt of one, piece by piece, holding a few pieces at most.

        Raises:
            FileError: At the first record that cannot be read or does not fit, with its line (or offset).
            DriftError: At the first record that needs a new column or a wider type.
        """
        ...

    def observe(self, chunks: Iterable[bytes], seen: Struct = EMPTY, excerpt: Excerpt | None = None) -> Struct:
        """The joined type of every value in one file (or a part of one) that the schema cannot hold as it is.

        A column that is new is reported with the type of all its values; a column that is known only with the types
        of values that do not fit it; an integer beyond 32 bits in an `int` column as `long`.

        Args:
            chunks: Its bytes.
            seen: What other files showed. Of what is no more than that, any part may be missing in the answer: joined
                with `seen` it is the same.
            excerpt: Which part of the file the chunks are; the whole of it by default.

        Raises:
            FileError: The file cannot be read at all.
        """
        ...
