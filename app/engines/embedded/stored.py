"""Reads the stored bytes of files: ahead for small ones, piece by piece or at any place for large ones."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.domain.errors import Category, FileError
from app.domain.files import SourceFile
from app.domain.ports import SourceReader

CHUNK_BYTES = 1024 * 1024
AHEAD_FILES = 16
AHEAD_BYTES = 64 * 1024 * 1024

Beat = Callable[[int], None]


def read_stored(reader: SourceReader, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
    """The stored bytes from `start` to `end` of a file.

    Raises:
        FileError: It cannot be read.
    """
    try:
        return reader.read(file, start, end)
    except OSError as error:
        raise _unreachable(error) from error


def stream_stored(reader: SourceReader, file: SourceFile, beat: Beat) -> Iterator[bytes]:
    """The stored bytes of a file in order.

    Args:
        reader: Where from.
        file: The file.
        beat: Told the size of each piece as it comes.

    Raises:
        FileError: It cannot be read, or is another version by now.
    """
    try:
        for chunk in reader.stream(file, CHUNK_BYTES):
            beat(len(chunk))
            yield chunk
    except OSError as error:
        raise _unreachable(error) from error


def _unreachable(error: OSError) -> FileError:
    return FileError(Category.CONNECTIVITY, f"The file could not be read: {error}.")


def read_ahead(
    reader: SourceReader, files: Sequence[SourceFile], *, threads: int = AHEAD_FILES
) -> Iterator[tuple[SourceFile, bytes | FileError]]:
    """Yield whole small files in the order given, while threads fetch the next ones within `AHEAD_BYTES`."""

    def fetch(file: SourceFile) -> bytes | FileError:
        try:
            return read_stored(reader, file)
        except FileError as error:
            return error

    waiting: collections.deque[tuple[SourceFile, Future[bytes | FileError]]] = collections.deque()
    held = 0
    coming = iter(files)
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as executor:
        following = next(coming, None)
        while waiting or following is not None:
            while following is not None and (
                not waiting or (held + following.size_bytes <= AHEAD_BYTES and len(waiting) < 4 * threads)
            ):
                waiting.append((following, executor.submit(fetch, following)))
                held += following.size_bytes
                following = next(coming, None)
            file, future = waiting.popleft()
            held -= file.size_bytes
            yield file, future.result()
