"""Progress in plain lines: how much is done, how fast, how long it takes still."""

from __future__ import annotations

import pytest

from app.cli.progress import Lines


def test_lines_tell_files_rows_rate_and_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(every_s=0) as lines:
        lines.batch_begins(files=4, stored_bytes=4_000)
        lines.progress(files=1, rows=1_500, stored_bytes=1_000)
        lines.batch_begins(files=1, stored_bytes=1_000)
        lines.progress(files=4, rows=1, stored_bytes=4_000)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("1 of 4 files, 1,500 rows, ")
    assert "/s, " in first
    assert first.endswith(" s left")
    assert second.startswith("5 of 5 files, 1,501 rows, ")
    assert second.endswith(", 0 s left")


def test_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(every_s=3600) as lines:
        lines.batch_begins(files=1000, stored_bytes=1000)
        for _ in range(1000):
            lines.progress(files=1, rows=1, stored_bytes=1)
        lines.note("something happened")
    assert capsys.readouterr().err == "something happened\n"
