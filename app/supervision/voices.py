"""One log of several speakers: a column says who speaks, and no line holds a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app.domain.redaction import Redactor

# Longer ones are cut: a line is to be read.
LONGEST = 4_000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Of each event; what is told of it is its name, its fields and, by the colour, its level.
_FRAME = frozenset({"event", "level", "timestamp"})
_COLOURS = {"error": "31", "critical": "31", "warning": "33"}
_SPEAKERS = ("36", "35", "34", "32")


class Voices:
    """Writes lines as they come, each with its time and its speaker."""

    def __init__(
        self,
        write: Callable[[str], object],
        redactor: Redactor,
        names: tuple[str, ...],
        *,
        colours: bool,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        """Write with `write`, in the clock of this machine; `names` are all speakers, for the column's width."""
        self._write = write
        self._redactor = redactor
        self._names = names
        self._width = max(map(len, names))
        self._colours = colours
        self._now = now

    def say(self, name: str, line: str) -> None:
        """A line of that speaker's: an event as JSON, or any text."""
        level, text = told(line)
        if text:
            who = self._coloured(name.ljust(self._width), _SPEAKERS[self._names.index(name) % len(_SPEAKERS)])
            # Cut last: half a secret would not be known for one.
            what = self._coloured(_cut(self._redactor.text(text)), _COLOURS.get(level))
            self._write(f"{self._now():%H:%M:%S}  {who}  {what}\n")

    def _coloured(self, text: str, colour: str | None) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and colour else text


def told(line: str) -> tuple[str, str]:
    """The level of a line, empty where it has none, and its text, fit for any terminal."""
    event = _event(line)
    if event is None:
        return "", _plain(line)
    fields = [f"{name}={_value(value)}" for name, value in event.items() if name not in _FRAME and value is not None]
    return str(event.get("level", "")), _plain(" ".join([str(event["event"]), *fields]))


def _event(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return repr(text) if isinstance(value, str) and (not text or re.search(r"\s", text)) else text


def _plain(text: str) -> str:
    """The text without what moves a cursor, changes a colour or makes a line of its own."""
    text = _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", _ESCAPES.sub("", text).rstrip().replace("\t", "    "))
    return text.replace("\n", "\\n")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
