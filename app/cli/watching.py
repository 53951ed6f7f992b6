"""`autoloader load --watch`: what is told of a load that goes on."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app.cli.options import Output
from app.cli.render import WHY_LEFT_ALONE, count, print_json, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.domain.runs import RunReport
    from app.services.watching import WatchOutcome

SIGNAL_BASE = 128


class Told:
    """Tells each run: a line for people, a line of JSON for programs."""

    def __init__(
        self,
        output: Output,
        document: Callable[[RunReport, float], dict[str, Any]],
        failures: Callable[[RunReport], None],
        then: Callable[[], None],
    ) -> None:
        """Tell by `document` or by a line and `failures`, and call `then` after it."""
        self._output = output
        self._document = document
        self._failures = failures
        self._then = then
        self._warned: set[str] = set()

    def __call__(self, report: RunReport, duration_s: float) -> None:
        """A run has ended."""
        if self._output is Output.JSON:
            print_json(self._document(report, duration_s))
        else:
            self._line(report, duration_s)
        # Whoever reads a pipe waits for it.
        sys.stdout.flush()
        self._then()

    def _line(self, report: RunReport, duration_s: float) -> None:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        sys.stdout.write(
            f"{now}  Loaded {count(report.files_loaded, 'file')}, {count(report.rows_loaded, 'row')}, "
            f"{size(report.stored_bytes)} in {duration_s:.1f} s into {report.table}.\n"
        )
        if report.files_skipped:
            sys.stdout.write(f"{count(report.files_skipped, 'file')} left alone: {WHY_LEFT_ALONE}.\n")
        self._failures(report)
        for warning in report.warnings:
            # Numbers in them grow; a sentence that was said is not said again because of that.
            kind = "".join(c for c in warning if not c.isdigit())
            if kind not in self._warned:
                self._warned.add(kind)
                sys.stderr.write(f"Note: {warning}\n")


def exit_status(outcome: WatchOutcome, failed: int) -> int:
    """The exit status of a watch that ended, having said so."""
    if outcome.signal_number is None:
        if outcome.error is not None:
            sys.stderr.write(f"Error ({outcome.error.code}): {outcome.error.message}\n")
            if outcome.error.advice:
                sys.stderr.write(f"  {outcome.error.advice}\n")
        return failed
    sys.stderr.write("Stopped; what was committed stays, the next run goes on from there.\n")
    return SIGNAL_BASE + outcome.signal_number if outcome.any_failed else 0
