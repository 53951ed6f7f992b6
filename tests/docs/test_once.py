"""The page about the promise names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import ROOT, read, rows, section

HEADING = "## Ways to lose rows, and what holds against each"
_TEST = re.compile(r"^def (test_\w+)\(", re.MULTILINE)


def named() -> list[str]:
    """The tests that the table names."""
    cells = [others[-1] for name, others in rows(section(read("explanation/once.md"), HEADING)).items() if others]
    return [name for cell in cells for name in re.findall(r"`(test_\w+)`", cell)]


def defined(*folders: str) -> set[str]:
    """The tests in the modules that pytest collects there."""
    modules: list[Path] = [path for folder in folders for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    return {name for module in modules for name in _TEST.findall(module.read_text(encoding="utf-8"))}


def test_every_test_that_the_page_names_is_there() -> None:
    assert named()
    assert set(named()) <= defined("crash", "scenarios", "model")


def test_every_test_of_the_ways_to_lose_rows_is_on_the_page() -> None:
    classes = (ROOT / "tests/crash/test_classes.py").read_text(encoding="utf-8")
    assert set(_TEST.findall(classes)) <= set(named())


def test_every_way_has_its_test() -> None:
    table = [line for line in section(read("explanation/once.md"), HEADING).splitlines() if line.startswith("| ")]
    assert len(table) > 10
    assert [line for line in table[1:] if "`test_" not in line] == []
