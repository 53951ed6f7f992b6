"""Keep loading what lands, until somebody ends it: look, run when there is news, wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Protocol

from app.domain.definition import OnFileChange
from app.domain.discovery import news
from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    CatalogAuthError,
    FatalError,
    MixedFormatsError,
    NoMatchError,
    SourceAuthError,
    SourceNotFoundError,
    StoppedByUser,
)
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, format_by_name
from app.domain.ledger import Ledger
from app.domain.ports import Source
from app.domain.runs import RunReport, RunStatus
from app.domain.selection import Decision, decide
from app.domain.watch import Watcher
from app.domain.watching import Beat, Lookout
from app.services.loading import LoadService
from app.services.preflight import LoadRequest
from app.services.resting import RestingEngine
from app.services.run import LoadPorts, RunSettings
from app.services.sighted import Sighted, Timed

# A run would do nothing about such a file, and note nothing.
_OLD = frozenset({Decision.KNOWN, Decision.SKIPPED, Decision.STILL_CHANGED, Decision.STILL_FAILED, Decision.TAKEN})
# What may pass by itself where it has worked before: a folder that comes back, a key that is renewed.
_PASSING = (SourceNotFoundError, BucketNotFoundError, SourceAuthError, CatalogAuthError)
_NEVER = float("inf")
_AT_ONCE = float("-inf")
_MOST_DOUBLINGS = 10


class Reporter(Protocol):
    """Told of every run of a watch that did something."""

    def __call__(self, report: RunReport, duration_s: float) -> None:
        """The run has ended."""
        ...


@dataclass(frozen=True)
class WatchSettings:
    """The numbers that a watch works by, in seconds."""

    beat: Beat
    # Runs do not begin sooner after each other, so that what lands in a stream makes no commit for each file.
    gap_s: float = 1.0
    # The engine's processes are let go after so long without a run.
    rest_s: float = 60.0
    # After a failure the next try is so far away, twice as far each time, and at last so far.
    first_pause_s: float = 1.0
    last_pause_s: float = 30.0


@dataclass(frozen=True)
class WatchPorts:
    """What a watch works with."""

    # Gives what a run works with. Asked again after a failure: a connection or token may have been the cause.
    load: Callable[[], LoadPorts]
    engine: RestingEngine
    # Opens the source, and a lookout over it.
    open: Callable[[], tuple[Source, Lookout]]
    report: Reporter
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class WatchOutcome:
    """How a watch ended: by a signal, or by a run that something stopped which does not pass."""

    signal_number: int | None
    # Some run failed, or the last round came to nothing.
    any_failed: bool
    error: AutoloaderError | None = None


class Watch:
    """Watches one source for one table. What it remembers from round to round does not grow."""

    def __init__(self, ports: WatchPorts, run: RunSettings, settings: WatchSettings, watcher: Watcher) -> None:
        self._ports = ports
        self._run_settings = run
        self._settings = settings
        self._watcher = watcher
        self._load = ports.load()
        self._source: Source | None = None
        self._lookout: Lookout | None = None
        # The next round runs whatever it sees: at the start, and while a batch may be open.
        self._must_run = True
        self._everything_due = _AT_ONCE
        self._everything_rested = _AT_ONCE
        self._took_s = 0.0
        self._run_began = _AT_ONCE
        self._rest_due = _NEVER
        # So many rounds in a row came to nothing, and the code of what was said of them last.
        self._failures = 0
        self._said = ""
        self._has_worked = False
        self._any_failed = False
        self._format: FileFormat | None = None

    def until_stopped(self, request: LoadRequest) -> WatchOutcome:
        """Load what is there and what lands, until the process is told to stop or a person has to change something.

        Each run has an id and a lease of its own. Rounds that find nothing new read the ledger and nothing else.
        What passes by itself is said once and tried again.

        Returns:
            How it ended; every run that did something has been reported.

        Raises:
            AutoloaderError: Something that does not pass stopped a round before its run began.
        """
        try:
            while True:
                request = self._try_round(request)
        except StoppedByUser as stopped:
            return WatchOutcome(stopped.signal_number, self._any_failed or self._failures > 0)
        except _RunStopped as stopped:
            return WatchOutcome(None, any_failed=True, error=stopped.error)
        finally:
            if self._lookout is not None:
                self._lookout.close()

    # --- rounds -----------------------------------------------------------------------------------------------------

    def _try_round(self, request: LoadRequest) -> LoadRequest:
        """One round and the wait after it; returns the request of the next one."""
        try:
            source, lookout = self._opened()
            self._round(request, source, lookout)
        except (AutoloaderError, _RunStopped) as failure:
            error = failure.error if isinstance(failure, _RunStopped) else failure
            passes = self._has_worked and isinstance(error, _PASSING)
            if isinstance(error, FatalError) and not passes:
                raise
            self._failed(error)
            return request
        if self._failures:
            self._watcher.note("It works again.")
        self._failures, self._said, self._has_worked = 0, "", True
        self._wait(lookout)
        # Once: what fails again then is not tried in every round.
        return replace(request, retry_failed=False)

    def _opened(self) -> tuple[Source, Lookout]:
        if self._source is None or self._lookout is None:
            self._source, self._lookout = self._ports.open()
        return self._source, self._lookout

    def _round(self, request: LoadRequest, source: Source, lookout: Lookout) -> None:
        look_at_all = self._must_run or self._ports.clock() >= self._everything_due
        landed = None if look_at_all else lookout.landed()
        if landed is None and not look_at_all:
            # In a storm that goes on, a look at everything would follow another one without end.
            self._ports.pause(max(self._everything_rested - self._ports.clock(), 0.0))
        seen = Timed(lookout.everything() if landed is None else landed, self._ports.clock)
        news = self._learning(seen) if self._must_run else self._news(request, seen)
        if news is not None:
            self._run(request, Sighted(source, news))
        self._took_s = seen.took_s
        if landed is None:
            pause_s = self._settings.beat.everything_in_s(seen.took_s, hears=lookout.hears)
            self._everything_due = self._ports.clock() + pause_s
            self._everything_rested = self._ports.clock() + seen.took_s

    def _failed(self, error: AutoloaderError) -> None:
        self._failures += 1
        self._everything_due = _AT_ONCE
        self._load = self._ports.load()
        if isinstance(error, SourceAuthError) and self._lookout is not None:
            # Its key was settled when it was opened, and there may be a new one by now.
            self._lookout.close()
            self._source = self._lookout = None
        if error.code != self._said:
            self._said = error.code
            self._watcher.note(f"Cannot load for now ({error.code}): {error.message} It is tried again until it works.")
        doublings = min(self._failures - 1, _MOST_DOUBLINGS)
        self._ports.pause(min(self._settings.first_pause_s * 2**doublings, self._settings.last_pause_s))

    def _wait(self, lookout: Lookout) -> None:
        """Wait for the next look: until something is heard, or its time has come."""
        clock, due = self._ports.clock, self._everything_due
        if lookout.glances and not lookout.hears:
            due = min(due, clock() + self._settings.beat.glance_in_s(self._took_s))
        while True:
            heard = lookout.wait(max(min(due, self._rest_due) - clock(), 0.0))
            if clock() >= self._rest_due:
                self._ports.engine.rest()
                self._rest_due = _NEVER
            if heard:
                self._ports.pause(max(self._run_began + self._settings.gap_s - clock(), 0.0))
            if heard or clock() >= due:
                return

    # --- what is new ------------------------------------------------------------------------------------------------

    def _learning(self, listing: Iterator[SourceFile]) -> Iterator[SourceFile]:
        for file in listing:
            if self._format is None and file.size_bytes:
                self._format = format_by_name(file.key)
            yield file

    def _news(self, request: LoadRequest, listing: Iterator[SourceFile]) -> Iterator[SourceFile] | None:
        """The listing from its first file on that a run would do something about; None where there is none."""
        load = self._load
        seen = next(listing, None)
        if seen is None:
            return None
        ledger = load.open_ledger() if load.has_ledger() else None
        ordered = load.in_order(chain((seen,), listing), _say_nothing)
        first = self._first_news(request, ordered, ledger)
        if first is None:
            return None
        self._check_format(request.values, first)
        return chain((first,), ordered)

    def _first_news(
        self, request: LoadRequest, ordered: Iterator[SourceFile], ledger: Ledger | None
    ) -> SourceFile | None:
        record = ledger.table(str(request.table)) if ledger is not None else None
        if ledger is None or record is None:
            return next(ordered, None)
        now = datetime.now(UTC)
        on_file_change = OnFileChange(request.values.get("on_file_change", OnFileChange.IGNORE))
        for sighting in news(ordered, lambda key: ledger.pages_after(record, key), lambda _file: None):
            decision = decide(
                sighting.file,
                sighting.known,
                now=now,
                max_tries=self._run_settings.file_tries,
                retry_failed=False,
                on_file_change=on_file_change,
            )
            if decision not in _OLD:
                return sighting.file
        return None

    def _check_format(self, values: Mapping[str, object], file: SourceFile) -> None:
        """Refuse a file whose name tells another format than those before: alone it would be taken for what it says.

        Raises:
            MixedFormatsError: It does.
        """
        if not file.size_bytes or values.get("format") is not None:
            return
        found = format_by_name(file.key)
        self._format = self._format or found
        if found is not self._format:
            raise MixedFormatsError(
                f"The source mixes formats: {self._format.value if self._format else 'unknown'} and {file.key}.",
                remedy="Choose with --file-pattern, such as '*.json'. What was committed before stays.",
            )

    # --- runs -------------------------------------------------------------------------------------------------------

    def _run(self, request: LoadRequest, sighted: Sighted) -> None:
        """One run over what was seen.

        Raises:
            _RunStopped: It was stopped, and has been reported.
            AutoloaderError: It did not begin.
        """
        is_first, self._must_run = self._must_run, True
        self._run_began = self._ports.clock()
        service = LoadService(self._ports_for(request, sighted), self._run_settings)
        try:
            report = service.load(request, self._watcher)
        except NoMatchError:
            # What one waits for has not come yet.
            self._must_run = False
            return
        except StoppedByUser as stopped:
            if isinstance(stopped.report, RunReport) and stopped.report.batches:
                self._tell(stopped.report)
            raise
        finally:
            self._rest_due = self._ports.clock() + self._settings.rest_s
        if report.batches or report.errors or report.stopped_by or (report.files_skipped and not is_first):
            self._tell(report)
        if report.stopped_by is not None:
            raise _RunStopped(report.stopped_by)
        self._must_run = False

    def _ports_for(self, request: LoadRequest, sighted: Sighted) -> LoadPorts:
        load = self._load
        pattern = request.values.get("file_pattern")

        def open_source(path: str, wanted: str | None, credentials: Mapping[str, str] | None) -> Source:
            # A batch of the past may have another source.
            is_ours = (path, wanted) == (request.path, pattern)
            return sighted if is_ours else load.open_source(path, wanted, credentials)

        return replace(load, open_source=open_source)

    def _tell(self, report: RunReport) -> None:
        self._any_failed = self._any_failed or report.status is RunStatus.FAILED
        self._ports.report(report, self._ports.clock() - self._run_began)


class _RunStopped(Exception):  # noqa: N818 - it carries an error, and is none
    """A run was stopped, and has been reported."""

    def __init__(self, error: AutoloaderError) -> None:
        super().__init__(str(error))
        self.error = error


def _say_nothing(_: str) -> None:
    """What is told of a listing that is not in key order: the run over it tells people."""
