"""Decides which bytes of which files an inference looks at, and cuts them at the borders of records. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions

# Less than this of a file tells little, so of very many files only some are looked at.
MIN_SHARE_BYTES = 64 * 1024
# How far the records of a document that is not one record a line are followed.
MAX_SCAN_BYTES = 4 * 1024 * 1024
# A string that does not end is one to the end, whatever brackets are in it.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True)
class Sample:
    """What to look at of one file: all of it, or about `share_bytes`."""

    file: SourceFile
    share_bytes: int

    @property
    def whole(self) -> bool:
        """Whether the stored bytes are within the share."""
        return self.file.size_bytes <= self.share_bytes


def plan_samples(files: Sequence[SourceFile], sample_bytes: int) -> tuple[Sample, ...]:
    """Spread `sample_bytes` over `files` in key order: what small files leave over goes to the large ones.

    Args:
        files: At least one, in any order.
        sample_bytes: Bound of the stored bytes that are looked at.
    """
    ordered = sorted(files, key=lambda file: file.order)
    chosen = _spread(ordered, sample_bytes)
    shares: dict[int, int] = {}
    left = sample_bytes
    by_size = sorted(range(len(chosen)), key=lambda i: chosen[i].size_bytes)
    for done, i in enumerate(by_size):
        shares[i] = max(left // (len(chosen) - done), 1)
        left -= min(shares[i], chosen[i].size_bytes)
    return tuple(Sample(file, shares[i]) for i, file in enumerate(chosen))


def _spread(files: Sequence[SourceFile], sample_bytes: int) -> Sequence[SourceFile]:
    """All files, or as many as can each show `MIN_SHARE_BYTES`: at even distances, first and last among them."""
    least = sum(min(file.size_bytes, MIN_SHARE_BYTES) for file in files)
    if least <= sample_bytes:
        return files
    count = max(2, len(files) * sample_bytes // least)
    if count >= len(files):
        return files
    return [files[round(i * (len(files) - 1) / (count - 1))] for i in range(count)]


def slices(size_bytes: int, share_bytes: int) -> tuple[tuple[int, int], ...]:
    """Where to look in a file of `size_bytes`: start, middle and end, together about `share_bytes`."""
    if size_bytes <= share_bytes:
        return ((0, size_bytes),)
    third = max(share_bytes // 3, 1)
    middle = (size_bytes - third) // 2
    return ((0, third), (middle, middle + third), (size_bytes - third, size_bytes))


def head_only(head: bytes, options: FormatOptions) -> bool:
    """Whether only the start of the file that begins with `head` can be sampled: its lines are not its records."""
    if options.encoding is not None and options.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        return True
    if not has_lines(head):
        return True
    if options.format is FileFormat.JSON:
        return not _is_line_of_json(head)
    # A quoted line break is near: a line further on may as well be the middle of a value.
    quote = options.quote.encode()
    return bool(quote) and any(line.count(quote) % 2 for line in head[: head.rindex(b"\n")].split(b"\n"))


def has_lines(head: bytes) -> bool:
    """Whether a byte that is a newline is one in the file that begins with `head`, and there is any."""
    return b"\n" in head and not head.startswith(_WIDE_BOMS)


def _is_line_of_json(head: bytes) -> bool:
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    if not first.startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def cut_head(head: bytes, options: FormatOptions) -> bytes:
    """`head`, the start of a longer file, up to the end of its last whole record, as a document of its own.

    Empty where no record ends in it.
    """
    if options.format is FileFormat.JSON and not _is_line_of_json(head):
        return _cut_document(head[:MAX_SCAN_BYTES])
    if head.startswith(_WIDE_BOMS):
        return _cut_wide(head)
    return _cut_lines(head, options.quote.encode() if options.format is FileFormat.CSV else b"")


def _cut_lines(head: bytes, quote: bytes) -> bytes:
    """Up to the last line break that is not inside quotes."""
    end = head.rfind(b"\n") + 1
    open_quotes = head.count(quote, 0, end) if quote else 0
    while end and open_quotes % 2:
        before = head.rfind(b"\n", 0, end - 1) + 1
        open_quotes -= head.count(quote, before, end)
        end = before
    return head[:end]


def _cut_wide(head: bytes) -> bytes:
    for name, boms in (("utf-32", (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")), ("utf-16", (b"\xff\xfe", b"\xfe\xff"))):
        if head.startswith(boms):
            width = int(name[-2:]) // 8
            order = "little" if head.startswith(b"\xff\xfe") else "big"
            line_break = (10).to_bytes(width, "little" if order == "little" else "big")
            end = head.rfind(line_break)
            while end > 0 and end % width:
                end = head.rfind(line_break, 0, end + width - 1)
            return head[: end + width] if end > 0 else b""
    return b""


def _cut_document(head: bytes) -> bytes:
    """Follow brackets to the end of the last whole record of an array, or of a run of objects."""
    array = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    depth, end = 0, 0
    for token in _TOKENS.finditer(head):
        mark = token.group()
        if mark in {b"{", b"["}:
            depth += 1
        elif mark in {b"}", b"]"}:
            depth -= 1
            if depth == int(array):
                end = token.end()
    return head[:end] + (b"]" if array and end else b"")


def cut_middle(part: bytes, *, to_end: bool) -> bytes:
    """The whole lines of a slice that begins in the middle of a file.

    Args:
        part: The slice. Its first line is dropped, whole or not: nobody can tell.
        to_end: The slice goes to the file's end, so its last line is whole.
    """
    start = part.find(b"\n") + 1
    if not start:
        return b""
    return part[start:] if to_end else part[start : part.rfind(b"\n") + 1]


def header_lines(head: bytes, options: FormatOptions) -> bytes:
    """The lines at the start of a CSV file that a slice from its middle needs in front; empty for other formats."""
    if options.format is not FileFormat.CSV:
        return b""
    lines = head.split(b"\n", options.skip_rows + int(options.header))
    return b"".join(line + b"\n" for line in lines[:-1])
