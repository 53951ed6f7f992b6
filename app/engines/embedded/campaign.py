"""Brings all parts of one call to an end, through the deaths of the children that carry them out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from app.domain.errors import AutoloaderError, Category, EngineDiedError, FileError, FileFailure, WriteFailureError
from app.domain.files import SourceFile
from app.domain.ports import DataSink, Progress
from app.engines.embedded.messages import Beat, Broke, Done, Job, Opened, Puzzled, Reads, Refused, frame
from app.engines.embedded.orders import Part, split
from app.engines.embedded.pool import CalledOff, ChildPool, Died, Outcome, Task

MakeJob = Callable[[Part, int], Job]
Follow = Callable[[Part, Done | FileFailure], Sequence[Part]]


def nothing_more(_part: Part, _outcome: Done | FileFailure) -> Sequence[Part]:
    """What follows from a part where nothing does."""
    return ()


@dataclass
class _Attempt:
    """A part on its way through a child."""

    part: Part
    opened: list[str] = field(default_factory=list)
    reads: tuple[int, int] | None = None
    done: Beat = field(default_factory=Beat)


class Campaign:
    """One call of the engine: its parts, what came of them, and what has to be removed if it fails."""

    def __init__(
        self,
        pool: ChildPool,
        make_job: MakeJob,
        *,
        sink: DataSink | None = None,
        progress: Progress | None = None,
        follow: Follow = nothing_more,
    ) -> None:
        """Begin nothing yet.

        Args:
            pool: The children.
            make_job: Gives the job for a part and its number, which no other attempt of this call has.
            sink: Where data files go; what a dead child left there is removed.
            progress: Told what was done; what a dead child had done counts once, when it is done again.
            follow: Asked for further parts when one is done, or a part of one file has failed. Called by several
                threads; what it raises ends the call.
        """
        self._follow = follow
        self._pool = pool
        self._make_job = make_job
        self._sink = sink
        self._progress = progress
        self._changed = threading.Condition()
        self._called_off = threading.Event()
        self._outstanding = 0
        self._numbers = 0
        self._opened: set[str] = set()
        self._owed = Beat()
        self._error: AutoloaderError | None = None
        self.answers: list[tuple[Part, Done]] = []
        self.failures: list[FileFailure] = []

    def run(self, parts: Iterable[Part]) -> None:
        """Return when each file is in an answer or a failure.

        Raises:
            WriteFailureError: The data location takes no files.
            EngineDiedError: No child comes up, or the engine was closed meanwhile.
            KeyboardInterrupt: And the like. Whatever is raised, no data file of this call is left, no child at work.
        """
        finished = False
        try:
            for part in parts:
                self._submit(part)
            with self._changed:
                self._changed.wait_for(lambda: not self._outstanding or self._error is not None)
            if self._error is not None:
                raise self._error
            finished = True
        finally:
            if not finished:
                self._undo()

    def _undo(self) -> None:
        self._called_off.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._outstanding)
        self.remove_all()

    def remove_all(self) -> None:
        """Remove every data file of this call. Only when it has come to its end.

        Raises:
            WriteFailureError: One cannot be removed.
        """
        self._remove(sorted(self._opened))

    def _submit(self, part: Part) -> None:
        with self._changed:
            self._numbers += 1
            number = self._numbers
        attempt = _Attempt(part)
        # Packed before it counts: what cannot travel is an error of the caller, and nothing to wait for.
        packed = frame(self._make_job(part, number))
        with self._changed:
            self._outstanding += 1
        self._pool.submit(Task(packed, partial(self._hear, attempt), partial(self._finish, attempt), self._called_off))

    # --- what children say: in the thread of the child -----------------------------------------------------------

    def _hear(self, attempt: _Attempt, message: Beat | Reads | Opened) -> None:
        if isinstance(message, Opened):
            attempt.opened.append(message.path)
            with self._changed:
                self._opened.add(message.path)
        elif isinstance(message, Reads):
            attempt.reads = (message.start, message.stop)
        else:
            attempt.done = attempt.done + message
            self._advance(message)

    def _advance(self, beat: Beat) -> None:
        if self._progress is None:
            return
        with self._changed:
            paid = Beat(
                min(beat.files, self._owed.files),
                min(beat.rows, self._owed.rows),
                min(beat.stored_bytes, self._owed.stored_bytes),
            )
            self._owed = self._owed - paid
        fresh = beat - paid
        if fresh != Beat():
            self._progress(files=fresh.files, rows=fresh.rows, stored_bytes=fresh.stored_bytes)

    def _finish(self, attempt: _Attempt, outcome: Outcome) -> None:
        error: AutoloaderError | None = EngineDiedError("The engine failed in its own process.")
        try:
            error = self._settle(attempt, outcome)
        finally:
            # Whatever happened, the caller must not wait for ever.
            with self._changed:
                self._outstanding -= 1
                self._error = self._error or error
                self._changed.notify_all()

    def _settle(self, attempt: _Attempt, outcome: Outcome) -> AutoloaderError | None:
        if isinstance(outcome, Done):
            with self._changed:
                self.answers.append((attempt.part, outcome))
            return self._go_on(attempt.part, outcome)
        if isinstance(outcome, CalledOff) and self._called_off.is_set():
            return None
        if isinstance(outcome, Broke) or (isinstance(outcome, Died) and not outcome.at_start):
            return self._retry(attempt, outcome)
        return _error_of(outcome)

    def _retry(self, attempt: _Attempt, outcome: Died | Broke) -> AutoloaderError | None:
        try:
            self._remove(attempt.opened)
        except WriteFailureError as error:
            # What cannot be removed would be taken for data of this order by whoever cleans up.
            return error
        with self._changed:
            self._owed = self._owed + attempt.done
            self._opened.difference_update(attempt.opened)
        if self._called_off.is_set():
            return None
        smaller = split(attempt.part, attempt.reads)
        if not smaller:
            (file,) = attempt.part.files
            failure = failure_of(file, outcome)
            with self._changed:
                self.failures.append(failure)
            self._advance(Beat(files=1))
            return self._go_on(attempt.part, failure)
        for part in smaller:
            self._submit(part)
        return None

    def _go_on(self, part: Part, outcome: Done | FileFailure) -> AutoloaderError | None:
        try:
            following = self._follow(part, outcome)
        except WriteFailureError as error:
            return error
        if not self._called_off.is_set():
            for more in following:
                self._submit(more)
        return None

    def advance(self, beat: Beat) -> None:
        """Tell what was done that no child knows of."""
        self._advance(beat)

    def discard(self, paths: Sequence[str], *, stored_bytes: int = 0) -> None:
        """Remove data files of children that are done.

        Args:
            paths: The data files.
            stored_bytes: What was read for them, and is going to be read again.

        Raises:
            WriteFailureError: One cannot be removed.
        """
        self._remove(paths)
        with self._changed:
            self._opened.difference_update(paths)
            self._owed = self._owed + Beat(stored_bytes=stored_bytes)

    def _remove(self, paths: Iterable[str]) -> None:
        if self._sink is None:
            return
        for path in paths:
            try:
                self._sink.delete(path)
            except (OSError, AutoloaderError) as error:
                raise WriteFailureError(f"The unfinished data file {path} could not be removed: {error}.") from error


def _error_of(outcome: Refused | Puzzled | CalledOff | Died) -> AutoloaderError:
    """What ends the whole call, as no file is to blame."""
    if isinstance(outcome, Refused):
        return WriteFailureError(outcome.message)
    if isinstance(outcome, Puzzled):
        return EngineDiedError(f"A child process of the engine cannot read its work: {outcome.message}.")
    if isinstance(outcome, CalledOff):
        return EngineDiedError("The engine was closed while it was at work.")
    return EngineDiedError(f"A child process of the engine does not start: {outcome.reason}.")


def failure_of(file: SourceFile, outcome: Died | Broke) -> FileFailure:
    """Why a file failed that ended its child twice, alone."""
    if isinstance(outcome, Broke):
        category = Category.LIMIT_EXCEEDED if outcome.out_of_memory else Category.UNKNOWN
        message = f"This file cannot be read, even alone: {outcome.message}."
    else:
        limit = outcome.by_limit or outcome.out_of_memory
        category = Category.LIMIT_EXCEEDED if limit else Category.DATA_MALFORMED
        message = f"The process that read this file alone was stopped, twice: {outcome.reason}."
    return FileFailure.of(file.key, file.version, FileError(category, message))
