"""Carries out an infer job inside a child process: looks at samples of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from app.domain.errors import FileError, FileFailure
from app.domain.files import SourceFile
from app.domain.formats import FileFormat
from app.domain.nesting import check_nesting
from app.domain.types import EMPTY, Struct, join_structs
from app.engines.embedded.codecs import HEAD_BYTES, decompress, detect
from app.engines.embedded.messages import Beat, InferJob, Observed, Reads, Tell
from app.engines.embedded.parquet import ParquetSource, StoredFile, news
from app.engines.embedded.sampling import Sample, cut_head, cut_middle, head_only, header_lines, slices
from app.engines.embedded.stored import AHEAD_FILES, read_ahead, read_stored, stream_stored
from app.engines.embedded.text import text_decoder

SMALL_FILE_BYTES = 8 * 1024 * 1024
# Files of one record a line are looked at together up to so many bytes: one parse instead of thousands.
GROUP_BYTES = 8 * 1024 * 1024
# Compressed bytes can only be read from the start: of one file at most so many times its share of them.
SKIP_FACTOR = 4

Seen = Struct | FileFailure


def infer(job: InferJob, tell: Tell) -> Observed:
    """What the samples of the job show.

    Raises:
        MemoryError: The process may not have so much.
    """
    if job.reading.options.format is FileFormat.PARQUET:
        return _footers(job, tell)
    looking = _Looking(job, tell)
    looking.run()
    seen = tuple(looking.seen[i] for i in range(len(job.samples)))
    return Observed(seen, looking.sampled_bytes, looking.warnings)


def _footers(job: InferJob, tell: Tell) -> Observed:
    def look(sample: Sample) -> Seen:
        try:
            schema = ParquetSource(StoredFile(job.reading.reader, sample.file)).schema
            new = news(job.known, schema)
            check_nesting(new)
        except FileError as error:
            return _failure(sample, error)
        finally:
            tell(Beat())
        return new

    with ThreadPoolExecutor(AHEAD_FILES, thread_name_prefix="footers") as executor:
        seen = tuple(executor.map(look, job.samples))
    return Observed(seen, sum(sample.share_bytes for sample in job.samples if sample.whole))


def _failure(sample: Sample, error: FileError) -> FileFailure:
    return FileFailure.of(sample.file.key, sample.file.version, error)


def _is_joinable(stored: bytes) -> bool:
    # A file that ends inside a record would swallow the next one.
    return stored.startswith(b"{") and stored.rstrip().endswith(b"}")


class _Looking:
    """Looks at text files: small ones together where that can be, large ones slice by slice."""

    def __init__(self, job: InferJob, tell: Tell) -> None:
        self._samples = job.samples
        self._reader = job.reading.reader
        self._options = job.reading.options
        self._decoder = text_decoder(job.reading.options, job.known)
        self._tell = tell
        self.seen: dict[int, Seen] = {}
        self.sampled_bytes = 0
        # What is no more than files before show, or this one so far, need not be looked at value by value. Of a file
        # that turns out not to be readable nothing counts.
        self._before = EMPTY
        self._of_this = EMPTY

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of the columns."""
        return self._decoder.warnings

    def run(self) -> None:
        """Fill `seen`."""
        small = {i: s for i, s in enumerate(self._samples) if s.whole and s.file.size_bytes <= SMALL_FILE_BYTES}
        group: list[tuple[int, bytes]] = []
        held = 0
        ahead = read_ahead(self._reader, [sample.file for sample in small.values()])
        for (i, sample), (_, stored) in zip(small.items(), ahead, strict=True):
            self._tell(Beat())
            if isinstance(stored, FileError):
                self.seen[i] = _failure(sample, stored)
            elif self._options.format is FileFormat.JSON and _is_joinable(stored):
                group.append((i, stored))
                held += len(stored)
            else:
                self._alone(i, stored)
            if held >= GROUP_BYTES:
                self._together(group)
                group, held = [], 0
        self._together(group)
        for i in range(len(self._samples)):
            if i not in small:
                self._alone(i)

    def _together(self, group: list[tuple[int, bytes]]) -> None:
        """Look at files of one record a line as if they were one; one by one where that does not work."""
        if not group:
            return
        self._tell(Reads(group[0][0], group[-1][0] + 1))
        self._of_this = EMPTY
        try:
            joined = self._observe(part for _, content in group for part in (content, b"\n"))
        except FileError:
            for i, content in group:
                self._alone(i, content)
        else:
            self.seen.update((i, EMPTY) for i, _ in group)
            self._is_done(group[0][0], joined)
            self.sampled_bytes += sum(len(content) for _, content in group)

    def _observe(self, chunks: Iterable[bytes]) -> Struct:
        observed = self._decoder.observe(chunks, join_structs(self._before, self._of_this))
        self._of_this = join_structs(self._of_this, observed)
        return observed

    def _is_done(self, index: int, observed: Struct) -> None:
        self.seen[index] = observed
        self._before = join_structs(self._before, observed)

    def _alone(self, index: int, stored: bytes | None = None) -> None:
        sample = self._samples[index]
        self._tell(Reads(index, index + 1))
        self._of_this = EMPTY
        try:
            self._is_done(index, self._look(sample, stored))
        except FileError as error:
            self.seen[index] = _failure(sample, error)

    def _look(self, sample: Sample, stored: bytes | None) -> Struct:
        size = sample.file.size_bytes if stored is None else len(stored)
        if not size:
            return EMPTY
        head = stored
        if head is None:
            head = read_stored(self._reader, sample.file, *slices(size, sample.share_bytes)[0])
        # A compression that is named is checked by the decompressor; here it only tells how to read.
        codec = detect(head[:HEAD_BYTES]) if self._options.compression == "auto" else self._options.compression
        if codec == "none" and sample.whole:
            self.sampled_bytes += len(head)
            return self._observe((head,))
        if codec == "none":
            later = (read_stored(self._reader, sample.file, *part) for part in slices(size, sample.share_bytes)[1:])
            return self._parts(sample.file, head, later, to_end=True)
        return self._compressed(sample)

    def _compressed(self, sample: Sample) -> Struct:
        windows = _Windows(sample)
        pieces = decompress(windows.counted(self._stored(sample.file)), self._options.compression)
        head, ended = _take(pieces, sample.share_bytes)
        if ended:
            self.sampled_bytes += len(head)
            return self._observe((head,))
        return self._parts(sample.file, head[: sample.share_bytes // 3], windows.later(pieces), to_end=False)

    def _stored(self, file: SourceFile) -> Iterator[bytes]:
        return stream_stored(self._reader, file, lambda size: self._tell(Beat(stored_bytes=size)))

    def _parts(self, file: SourceFile, head: bytes, later: Iterator[bytes], *, to_end: bool) -> Struct:
        """Join what the start of a file and its later slices show.

        Args:
            file: The file.
            head: Its start, not all of it.
            later: Slices from further on, in order.
            to_end: The last of them goes to the file's end.
        """
        document = cut_head(head, self._options)
        if not document:
            # One record is longer than all that was to be looked at.
            return self._observe(decompress(self._stored(file), self._options.compression))
        self.sampled_bytes += len(document)
        seen = self._observe((document,))
        if head_only(head, self._options):
            return seen
        header = header_lines(head, self._options)
        for part in later:
            lines = cut_middle(part, to_end=to_end)
            if lines:
                self.sampled_bytes += len(lines)
                seen = join_structs(seen, self._slice(header + lines))
        return seen

    def _slice(self, document: bytes) -> Struct:
        try:
            return self._observe((document,))
        except FileError:
            # It may begin inside a quoted value, where a line is no record; loading the file will tell the truth.
            return EMPTY


class _Windows:
    """Picks slices of a compressed file by how many of its stored bytes were read."""

    def __init__(self, sample: Sample) -> None:
        self._read_bytes = 0
        self._size = max(sample.share_bytes // 3, 1)
        self._bound = min(sample.file.size_bytes, sample.share_bytes * SKIP_FACTOR)

    def counted(self, stored: Iterator[bytes]) -> Iterator[bytes]:
        """Count what is read."""
        for chunk in stored:
            self._read_bytes += len(chunk)
            yield chunk

    def later(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """A slice from the middle and one from near the end of what may be read."""
        for start in (self._bound // 2, self._bound * 9 // 10):
            while self._read_bytes < start and next(pieces, None) is not None:
                pass
            yield _take(pieces, self._size)[0][: self._size]


def _take(pieces: Iterator[bytes], size: int) -> tuple[bytes, bool]:
    """About `size` bytes or what there is, and whether that was the end."""
    taken: list[bytes] = []
    held = 0
    for piece in pieces:
        taken.append(piece)
        held += len(piece)
        if held > size:
            return b"".join(taken), False
    return b"".join(taken), True
