"""Lines of the common log: who speaks, what was said, and nothing that moves a terminal or was secret."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from app.domain.redaction import Redactor
from app.supervision.voices import LONGEST, Voices, told


def said(name: str, line: str, *, colours: bool = False) -> str:
    lines: list[str] = []
    voices = Voices(
        lines.append,
        Redactor(["very-secret-text"]),
        ("up", "prefect"),
        colours=colours,
        now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    voices.say(name, line)
    return "".join(lines)


def test_a_line_has_its_time_and_its_speaker() -> None:
    assert said("up", "Ready.") == "03:04:05  up       Ready.\n"
    assert said("prefect", "  indented\r") == "03:04:05  prefect    indented\n"
    assert said("up", "  \n") == ""


def test_an_event_is_told_by_its_name_and_fields() -> None:
    event = {
        "event": "run_ended",
        "level": "info",
        "timestamp": "2026",
        "run_id": "7",
        "rows": 3,
        "why": "a b",
        "x": None,
    }
    assert told(json.dumps(event)) == ("info", "run_ended run_id=7 rows=3 why='a b'")


@pytest.mark.parametrize("line", ["{", "{}", '{"a": 1}', "{" * 100_000, "[1]"])
def test_what_is_no_event_is_told_as_it_is(line: str) -> None:
    assert told(line)[1][:LONGEST] == line[:LONGEST]


def test_nothing_reaches_the_terminal_that_moves_it() -> None:
    assert told("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x9b2J") == ("", "red bell\\x07 \\x9b2J")
    assert told(json.dumps({"event": "two\nlines \x1b[2Jgone"})) == ("", "two\\nlines gone")
    assert told(json.dumps({"event": "x", "why": "a\x1b[2Jb"})) == ("", "x why=ab")


def test_secrets_and_endless_lines_are_cut() -> None:
    assert said("up", "key=very-secret-text postgresql://me:pass-word@host").endswith(
        "key=*** postgresql://me:***@host\n"
    )
    assert len(said("up", "x" * 100_000)) < LONGEST + 100
    assert "very" not in said("up", "x" * (LONGEST - 8) + "very-secret-text")


def test_colours_are_for_terminals() -> None:
    event = json.dumps({"event": "bad", "level": "error"})
    assert "\x1b" not in said("up", event)
    assert said("up", event, colours=True).endswith("\x1b[31mbad\x1b[0m\n")
