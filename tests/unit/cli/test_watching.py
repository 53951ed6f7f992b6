"""What a watch says of its runs, and the status that it ends with."""

from __future__ import annotations

import json
import signal

import pytest

from app.cli.load import report_document
from app.cli.options import Output
from app.cli.watching import Told, exit_status
from app.domain.errors import Category, FileFailure, TableReplacedError
from app.domain.runs import RunReport
from app.services.watching import WatchOutcome


def _report(*warnings: str, skipped: int = 0) -> RunReport:
    report = RunReport("r1", "local.a.b", files_loaded=2, rows_loaded=3, stored_bytes=1500, files_skipped=skipped)
    report.warnings.extend(warnings)
    report.errors.append(FileFailure("file:///x", "1", Category.UNKNOWN, "no"))
    report.settle()
    return report


def _told(output: Output, then: list[str]) -> Told:
    return Told(
        output, report_document, lambda report: then.append(report.errors[0].message), lambda: then.append("then")
    )


def test_programs_get_one_line_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    told = _told(Output.JSON, [])
    told(_report("w"), 1.5)
    told(_report("w"), 0.25)
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["run_id"], first["files"]["loaded"], first["duration_s"], first["warnings"]) == ("r1", 2, 1.5, ["w"])
    assert second["duration_s"] == 0.25


def test_people_get_a_line_a_run_and_each_warning_once(capsys: pytest.CaptureFixture[str]) -> None:
    then: list[str] = []
    told = _told(Output.TEXT, then)
    told(_report("Left alone: 3."), 1.5)
    told(_report("Left alone: 4.", "Another."), 1.5)
    told(_report(skipped=1), 1.5)
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line[10:] for line in lines[:2]] == ["Loaded 2 files, 3 rows, 1.5 KB in 1.5 s into local.a.b."] * 2
    assert lines[3] == "1 file left alone: empty, a new version of a loaded file, or in the hands of another run."
    assert shown.err.splitlines() == ["Note: Left alone: 3.", "Note: Another."]
    assert then == ["no", "then"] * 3


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (WatchOutcome(signal.SIGINT, any_failed=False), 0, "Stopped"),
        (WatchOutcome(signal.SIGTERM, any_failed=False), 0, "Stopped"),
        (WatchOutcome(signal.SIGINT, any_failed=True), 130, "Stopped"),
        (WatchOutcome(signal.SIGTERM, any_failed=True), 143, "Stopped"),
        (WatchOutcome(None, any_failed=True, error=TableReplacedError()), 1, "Error (table_replaced)"),
    ],
)
def test_how_a_watch_ends(outcome: WatchOutcome, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(outcome, 1) == status
    assert capsys.readouterr().err.startswith(said)
