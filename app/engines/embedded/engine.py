"""The embedded engine: divides work among child processes, and sees to it that a file that kills one harms no other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce

from app.domain.errors import FileFailure, WriteFailureError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.files import SourceFile
from app.domain.formats import FileFormat
from app.domain.ports import Inference, Progress, Reading, RewriteOrder, Rewritten, WriteOrder, WriteResult
from app.domain.replacing import StoredData
from app.domain.sampling import SampledRows
from app.domain.types import EMPTY, Struct, join_structs, mixed_columns, mixture_warning
from app.engines.embedded.assembly import Assembly
from app.engines.embedded.campaign import Campaign
from app.engines.embedded.messages import (
    CutJob,
    Done,
    InferJob,
    Job,
    Observed,
    RewriteJob,
    RewrittenAll,
    ShowJob,
    Shown,
    SpanJob,
    WriteJob,
)
from app.engines.embedded.orders import SPAN_BYTES, Part, divide, divide_and_cut
from app.engines.embedded.pool import ChildPool
from app.engines.embedded.sampling import plan_samples

LEAST_MEMORY_BYTES = 4 * 1024 * 1024 * 1024


class EmbeddedEngine:
    """Reads, decodes and encodes in child processes on this machine. Keeps the promises of the Engine port.

    May be used by several threads at once; they share the children.
    """

    def __init__(
        self,
        *,
        processes: int | None = None,
        memory_bytes: int | None = None,
        stall_timeout_s: float = 600.0,
        span_bytes: int = SPAN_BYTES,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Start nothing yet.

        Args:
            processes: How many children there may be; as many as there are cores for us.
            memory_bytes: Address space of each child; half of the machine's memory, and at least 4 GiB.
            stall_timeout_s: A child that gets nowhere for so long is killed.
            span_bytes: The least size of the spans that a large file is cut into, for several children.
            failpoints: For tests; the first child has them too.
        """
        self._span_bytes = span_bytes
        self._processes = processes or len(os.sched_getaffinity(0))
        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        self._pool = ChildPool(
            processes=self._processes,
            memory_bytes=memory_bytes or max(LEAST_MEMORY_BYTES, half),
            stall_timeout_s=stall_timeout_s,
            failpoints=failpoints,
        )

    def expect(self, files: Sequence[SourceFile]) -> None:
        """Start the children that an order of such files will have work for; see the Engine port."""
        if files:
            self._pool.start(len(divide(files, processes=self._processes)))

    def infer(self, files: Sequence[SourceFile], reading: Reading, known: Struct = EMPTY) -> Inference:
        """Look at a sample of all `files`; see the Engine port.

        Raises:
            EngineDiedError: The child processes do not start.
        """
        samples = {s.file.key: s for s in plan_samples(files, reading.options.sample_bytes)}
        # Weighed by what is looked at of them, not by what they hold.
        weighed = [s.file._replace(size_bytes=min(s.file.size_bytes, s.share_bytes)) for s in samples.values()]

        def job(part: Part, _: int) -> InferJob:
            return InferJob(tuple(samples[file.key] for file in part.files), reading, known)

        campaign = Campaign(self._pool, job)
        campaign.run(divide(weighed, processes=self._processes))
        return _inference(campaign, tuple(s.file for s in samples.values()), reading)

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        """Write the rows of `order.files`; see the Engine port.

        Raises:
            WriteFailureError: The data location takes no files; nothing of this order is left there.
            EngineDiedError: The child processes do not start; nothing of this order is left.
        """
        if not order.files:
            return WriteResult()

        def job(part: Part, number: int) -> Job:
            if part.cuts:
                return CutJob(part.files[0], order.reading, part.cuts)
            one = replace(order, files=part.files)
            return WriteJob(one, number, careful=part.careful) if part.span is None else SpanJob(one, number, part.span)

        def follow(part: Part, outcome: Done | FileFailure) -> Sequence[Part]:
            return assembly.follow(campaign, part, outcome)

        assembly = Assembly(order, at_once=self._processes)
        campaign = Campaign(self._pool, job, sink=order.sink, progress=progress, follow=follow)
        campaign.run(divide_and_cut(order.files, processes=self._processes, span_bytes=self._span_bytes))
        return _write_result(campaign, assembly)

    def rewrite(self, order: RewriteOrder) -> tuple[Rewritten, ...]:
        """Write data files anew without some of their rows; see the Engine port.

        Raises:
            WriteFailureError: One cannot be read or written; nothing of this order is left there.
            EngineDiedError: The child processes do not start; nothing of this order is left.
        """
        if not order.data_files:
            return ()
        stored = {file.path: file for file in order.data_files}

        def job(part: Part, number: int) -> RewriteJob:
            return RewriteJob(replace(order, data_files=tuple(stored[file.key] for file in part.files)), number)

        campaign = Campaign(self._pool, job, sink=order.sink)
        campaign.run(divide([_as_file(file) for file in order.data_files], processes=self._processes))
        if campaign.failures:
            campaign.remove_all()
            failure = campaign.failures[0]
            raise WriteFailureError(f"The table's data file {failure.key} could not be written anew. {failure.message}")
        answers = (answer for _, answer in campaign.answers if isinstance(answer, RewrittenAll))
        rewritten = {one.path: one for answer in answers for one in answer.rewritten}
        return tuple(rewritten[file.path] for file in order.data_files)

    def sample_rows(self, files: Sequence[SourceFile], reading: Reading, schema: Struct, limit: int) -> SampledRows:
        """Show the first rows of files; see the RowSampler port.

        Raises:
            EngineDiedError: The child processes do not start.
        """
        if not files:
            return SampledRows()
        campaign = Campaign(self._pool, lambda part, _: ShowJob(part.files[0], reading, schema, limit))
        campaign.run(Part((file,)) for file in files)
        shown = {part.files[0].key: answer.sample for part, answer in campaign.answers if isinstance(answer, Shown)}
        samples = [shown[file.key] for file in files if file.key in shown]
        return SampledRows(
            tuple(row for sample in samples for row in sample.rows)[:limit],
            sum(sample.counted for sample in samples),
            sum(sample.stored_bytes for sample in samples),
            (*campaign.failures, *(failure for sample in samples for failure in sample.failed)),
        )

    def close(self) -> None:
        """End the child processes. Idempotent."""
        self._pool.close()


def _as_file(stored: StoredData) -> SourceFile:
    """A data file in the form in which work is divided."""
    return SourceFile(stored.path, "", stored.size_bytes, datetime.fromtimestamp(0, UTC))


def _inference(campaign: Campaign, files: Sequence[SourceFile], reading: Reading) -> Inference:
    seen: dict[str, Struct | FileFailure] = {failure.key: failure for failure in campaign.failures}
    for part, answer in campaign.answers:
        if isinstance(answer, Observed):
            seen.update((file.key, what) for file, what in zip(part.files, answer.seen, strict=True))
    # In the files' order, so that a name keeps the spelling of the first file that has it.
    found = [seen[file.key] for file in files]
    observed = [answer for _, answer in campaign.answers if isinstance(answer, Observed)]
    schema, mixed = _joined([what for what in found if isinstance(what, Struct)])
    # What text looks like is no type of its own where a format has nothing but text.
    across = [] if reading.options.format is FileFormat.CSV else mixed
    return Inference(
        schema,
        tuple(what for what in found if isinstance(what, FileFailure)),
        sum(answer.sampled_bytes for answer in observed),
        tuple(dict.fromkeys([*(w for answer in observed for w in answer.warnings), *across])),
    )


def _joined(seen: Sequence[Struct]) -> tuple[Struct, list[str]]:
    """What all files show together, and a warning for each column whose types only meet in a string."""
    schema = EMPTY
    warnings: list[str] = []
    for what in seen:
        warnings.extend(mixture_warning(path) for path in mixed_columns(schema, what))
        schema = join_structs(schema, what)
    return schema, warnings


def _write_result(campaign: Campaign, assembly: Assembly) -> WriteResult:
    answers = [(part.files[0].order, answer) for part, answer in campaign.answers if isinstance(answer, WriteResult)]
    results = [result for _, result in sorted([*answers, *assembly.results], key=lambda answer: answer[0])]
    failed = [*campaign.failures, *(f for result in results for f in result.failed)]
    return WriteResult(
        data_files=tuple(f for result in results for f in result.data_files),
        loaded=tuple(sorted((f for r in results for f in r.loaded), key=lambda f: f.key.encode())),
        failed=tuple(sorted(failed, key=lambda f: f.key.encode())),
        drifted=tuple(sorted((f for r in results for f in r.drifted), key=lambda f: f.order)),
        drift=reduce(join_structs, (r.drift for r in results), EMPTY),
    )
