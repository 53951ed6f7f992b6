"""Reads the stored bytes of files: ahead for small ones, piece by piece or at any place for large ones."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.domain.errors import Category, FileError
from app.domain.files import SourceFile
from app.domain.ports import SourceReader

CHUNK_BYTES = 1024 * 1024
# What is fetched at once of a file of which only a part is wanted.
PIECE_BYTES = 4 * 1024 * 1024
AHEAD_FILES = 16
AHEAD_BYTES = 64 * 1024 * 1024
# So many small files are fetched by one thread in one go, where there are enough for all threads.
RUN_FILES = 16

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


def stream_stored(
    reader: SourceReader, file: SourceFile, beat: Beat, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[bytes]:
    """The stored bytes of a file in order.

    Args:
        reader: Where from.
        file: The file.
        beat: Told the size of each piece as it comes.
        chunk_bytes: About how large a piece is.

    Raises:
        FileError: It cannot be read, or is another version by now.
    """
    try:
        for chunk in reader.stream(file, chunk_bytes):
            beat(len(chunk))
            yield chunk
    except OSError as error:
        raise _unreachable(error) from error


def stream_part(reader: SourceReader, file: SourceFile, start: int, stop: int | None, beat: Beat) -> Iterator[bytes]:
    """The stored bytes from `start` to `stop` (None: the end), of one version; the next piece is fetched meanwhile.

    Args:
        reader: Where from.
        file: The file.
        start: The first byte.
        stop: One past the last.
        beat: Told the size of each piece as it is handed out.

    Raises:
        FileError: It cannot be read, or is another version by now.
    """
    end = file.size_bytes if stop is None else stop
    places = range(start, end, PIECE_BYTES)
    with ThreadPoolExecutor(1, thread_name_prefix="read-part") as executor:
        coming: Future[bytes] | None = None
        for place in places:
            piece = coming or executor.submit(read_stored, reader, file, place, min(place + PIECE_BYTES, end))
            data = piece.result()
            following = place + PIECE_BYTES
            coming = None
            if following < end:
                coming = executor.submit(read_stored, reader, file, following, min(following + PIECE_BYTES, end))
            beat(len(data))
            yield data


def _unreachable(error: OSError) -> FileError:
    return FileError(Category.CONNECTIVITY, f"The file could not be read: {error}.")


def read_ahead(
    reader: SourceReader, files: Sequence[SourceFile], *, threads: int = AHEAD_FILES
) -> Iterator[tuple[SourceFile, bytes | FileError]]:
    """Yield whole small files in the order given, while threads fetch the next ones within `AHEAD_BYTES`."""

    def fetch(run: list[SourceFile]) -> list[bytes | FileError]:
        return [_fetched(reader, file) for file in run]

    waiting: collections.deque[tuple[list[SourceFile], int, Future[list[bytes | FileError]]]] = collections.deque()
    held = 0
    coming = _runs(files, most_files=max(1, min(RUN_FILES, len(files) // (4 * threads))))
    with ThreadPoolExecutor(threads, thread_name_prefix="read-ahead") as executor:
        following = next(coming, None)
        while waiting or following is not None:
            while following is not None:
                size_bytes = sum(file.size_bytes for file in following)
                if waiting and (held + size_bytes > AHEAD_BYTES or len(waiting) >= 4 * threads):
                    break
                waiting.append((following, size_bytes, executor.submit(fetch, following)))
                held += size_bytes
                following = next(coming, None)
            run, size_bytes, future = waiting.popleft()
            held -= size_bytes
            yield from zip(run, future.result(), strict=True)


def _fetched(reader: SourceReader, file: SourceFile) -> bytes | FileError:
    try:
        return read_stored(reader, file)
    except FileError as error:
        return error


def _runs(files: Sequence[SourceFile], *, most_files: int) -> Iterator[list[SourceFile]]:
    """Files that one thread fetches one after the other: handing over each by itself costs as much as reading it."""
    run: list[SourceFile] = []
    held = 0
    for file in files:
        if run and (len(run) == most_files or held + file.size_bytes > CHUNK_BYTES):
            yield run
            run, held = [], 0
        run.append(file)
        held += file.size_bytes
    if run:
        yield run
