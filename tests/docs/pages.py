"""The documents as tests see them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the word of the comment right before it."""

    mark: str | None
    language: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file that is ours."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def read(name: str) -> str:
    """A page of `docs`, or of the root where the name begins with a slash."""
    path = ROOT / name[1:] if name.startswith("/") else DOCS / name
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(m["mark"], m["language"], m["text"]) for m in _FENCE.finditer(text)]


def without_blocks(text: str) -> str:
    """A page's prose."""
    return _FENCE.sub("", text)


def codes(text: str) -> set[str]:
    """What stands in backticks in a page's prose, a whole span each."""
    return set(re.findall(r"`([^`\n]+)`", without_blocks(text)))


def section(text: str, heading: str) -> str:
    """What stands under a heading, to the next one of its level or above."""
    marks = heading.partition(" ")[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a page's tables: the first cell, less its backticks, and the other cells."""
    found = {}
    for line in without_blocks(text).splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for name in first.split(", "):
                found[name.strip("`")] = others
    return found
