"""Divides the files of an order among child processes, and again when one of them dies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from app.domain.files import SourceFile
from app.engines.embedded.spans import Span

# Beyond its bytes a file costs a request and a parse; so ten thousand tiny files are not given to one child.
FILE_COST_BYTES = 32 * 1024
# A part of about this many stored bytes makes data files of a good size, and enough parts to keep the cores busy.
PART_BYTES = 256 * 1024 * 1024
# Below this a second child costs more than it gains.
SMALL_BYTES = 4 * 1024 * 1024
# A span smaller than this makes data files that are too small to be of use.
SPAN_BYTES = 64 * 1024 * 1024
# A file is cut when it is so many times what each child has to do on average.
UNEVEN = 1.25


@dataclass(frozen=True)
class Part:
    """Some of an order's files for one child, in key order.

    `careful`: the only file of the part killed a child once; it is read alone, slowly, once more. `cuts`: the child
    only looks where that file can be cut into so many spans. `span`: it loads one of them.
    """

    files: tuple[SourceFile, ...]
    careful: bool = False
    cuts: int = 0
    span: Span | None = None


def divide(files: Sequence[SourceFile], *, processes: int) -> tuple[Part, ...]:
    """Contiguous runs of `files` in key order, of about equal cost, several a child when there is much to do.

    Args:
        files: At least one, in any order.
        processes: How many children there are, at least one.
    """
    ordered = sorted(files, key=lambda file: file.order)
    total = sum(map(_cost, ordered))
    wanted = 1 if total <= SMALL_BYTES else max(processes, -(-total // PART_BYTES))
    parts: list[Part] = []
    run: list[SourceFile] = []
    spent = 0
    for file in ordered:
        # A run ends where the next file's middle lies beyond the run's share of the whole.
        if run and spent + _cost(file) / 2 > (len(parts) + 1) * total / wanted:
            parts.append(Part(tuple(run)))
            run = []
        run.append(file)
        spent += _cost(file)
    return (*parts, Part(tuple(run)))


def divide_and_cut(files: Sequence[SourceFile], *, processes: int, span_bytes: int = SPAN_BYTES) -> tuple[Part, ...]:
    """The same, but files that would keep one child busy when the others have nothing left to do are to be cut.

    Those come first, as their spans come later.

    Args:
        files: At least one, in any order.
        processes: How many children there are, at least one.
        span_bytes: The least size of a span.
    """
    ordered = sorted(files, key=lambda file: file.order)
    share = sum(file.size_bytes for file in ordered) / processes
    counts = [_spans(file, share, processes, span_bytes) for file in ordered]
    cut = [Part((file,), cuts=count) for file, count in zip(ordered, counts, strict=True) if count > 1]
    whole: list[Part] = []
    # Around a file that is cut, runs end: one of files before and behind it would be looked into for its rows.
    for is_cut, run in groupby(zip(ordered, counts, strict=True), lambda pair: pair[1] > 1):
        if not is_cut:
            whole += divide([file for file, _ in run], processes=processes)
    return (*cut, *whole)


def _spans(file: SourceFile, share: float, processes: int, span_bytes: int) -> int:
    """Into how many spans a file is cut; 1: not at all."""
    if processes == 1 or file.size_bytes < UNEVEN * share:
        return 1
    # So many for each child, as one alone at the end would keep the others waiting.
    for_each = max(1, -(-file.size_bytes // (PART_BYTES * processes)))
    return min(file.size_bytes // span_bytes, for_each * processes)


def _cost(file: SourceFile) -> int:
    return file.size_bytes + FILE_COST_BYTES


def split(part: Part, suspects: tuple[int, int] | None = None) -> tuple[Part, ...]:
    """What to try after the child of `part` died: smaller parts, or the one file carefully; nothing when that was it.

    Args:
        part: What the child was given.
        suspects: First and one past the last index of the files that it was reading when it died, where it said so:
            they are set apart, so that the others need not be read a dozen times.
    """
    files = part.files
    if len(files) == 1:
        return () if part.careful else (replace(part, careful=True),)
    start, stop = suspects or (0, len(files))
    apart, others = files[start:stop], files[:start] + files[stop:]
    if not apart or not others:
        half = len(files) // 2
        apart, others = files[:half], files[half:]
    return (Part(apart), Part(others))
