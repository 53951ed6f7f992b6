"""What the engine and its child processes say to each other: pickles, each behind its length."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from app.domain.errors import FileFailure
from app.domain.files import SourceFile
from app.domain.ports import Reading, RewriteOrder, Rewritten, WriteOrder, WriteResult
from app.domain.sampling import SampledRows
from app.domain.types import Struct
from app.engines.embedded.sampling import Sample
from app.engines.embedded.spans import Span, SpanDone

LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class WriteJob:
    """Part of an order. Data files are called `<order.name_prefix>-<number>-<sequence>.parquet`."""

    order: WriteOrder
    number: int
    careful: bool = False


@dataclass(frozen=True)
class CutJob:
    """Look where a file can be cut into about `count` spans."""

    file: SourceFile
    reading: Reading
    count: int


@dataclass(frozen=True)
class Cuts:
    """Where the spans of a CutJob's file begin, but for the first one; empty where it is better read in one go.

    `counted` says that no lines have to be counted to tell where an error is.
    """

    starts: tuple[int, ...] = ()
    counted: bool = False


@dataclass(frozen=True)
class SpanJob:
    """Load one span of the one file of an order. Data files are called as those of a WriteJob."""

    order: WriteOrder
    number: int
    span: Span


@dataclass(frozen=True)
class InferJob:
    """Look at samples of some files."""

    samples: tuple[Sample, ...]
    reading: Reading
    known: Struct


@dataclass(frozen=True)
class ShowJob:
    """Show the first rows of a file."""

    file: SourceFile
    reading: Reading
    schema: Struct
    limit: int


@dataclass(frozen=True)
class Shown:
    """What a ShowJob saw."""

    sample: SampledRows


@dataclass(frozen=True)
class RewriteJob:
    """Part of an order to take rows out of data files. New ones are called as those of a WriteJob."""

    order: RewriteOrder
    number: int


@dataclass(frozen=True)
class RewrittenAll:
    """What became of the data files of a RewriteJob, in their order."""

    rewritten: tuple[Rewritten, ...]


@dataclass(frozen=True)
class Observed:
    """What an InferJob saw, by its samples' order: a file's schema, or why it cannot be read."""

    seen: tuple[Struct | FileFailure, ...]
    sampled_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """The child is up."""


@dataclass(frozen=True)
class Beat:
    """The child is alive, and did so much since the last beat."""

    files: int = 0
    rows: int = 0
    stored_bytes: int = 0

    def __add__(self, other: Beat) -> Beat:
        return Beat(self.files + other.files, self.rows + other.rows, self.stored_bytes + other.stored_bytes)

    def __sub__(self, other: Beat) -> Beat:
        return Beat(self.files - other.files, self.rows - other.rows, self.stored_bytes - other.stored_bytes)


@dataclass(frozen=True)
class Reads:
    """The child now reads the files from index `start` to `stop` (excluded) of its job."""

    start: int
    stop: int


@dataclass(frozen=True)
class Opened:
    """The child made a data file; should it die, somebody has to remove it."""

    path: str


@dataclass(frozen=True)
class Refused:
    """The data location takes no files: the whole order cannot be written."""

    message: str


@dataclass(frozen=True)
class Broke:
    """The job ended in an error that belongs to no file; `out_of_memory` tells the one kind that has a meaning."""

    message: str
    out_of_memory: bool = False


@dataclass(frozen=True)
class Puzzled:
    """The child cannot read the job that came: no file is to blame."""

    message: str


Job = WriteJob | CutJob | SpanJob | InferJob | RewriteJob | ShowJob
Done = WriteResult | Cuts | SpanDone | Observed | RewrittenAll | Shown
Answer = Done | Refused | Broke | Puzzled
Message = Ready | Beat | Reads | Opened | Answer
Tell = Callable[[Message], None]


def frame(message: object) -> bytes:
    """The bytes that carry `message`."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(body)) + body


def read_body(stream: BinaryIO) -> bytes | None:
    """The next message of a blocking stream, not unpacked yet; None at its end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return body if len(body) == length else None


def unpack(body: bytes) -> object:
    """The message that `frame` packed, without its length."""
    # Both ends are this program: what comes out of the pipe is as trusted as the program itself.
    return pickle.loads(body)  # noqa: S301


class Frames:
    """Takes bytes as they arrive and gives back whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[object]:
        """Add `data`; the messages that are whole now, in order."""
        self._buffer += data
        found: list[object] = []
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            end = LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(unpack(bytes(self._buffer[LENGTH.size : end])))
            del self._buffer[:end]
        return found
