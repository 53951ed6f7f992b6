"""Decisions name what holds them, and what they say of dependencies is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, codes, read, rows

DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
ONE_SCREEN_LINES = 80


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_short_and_gives_its_reasons(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.search(r"\bWhy\b", text)
    assert len(text.splitlines()) <= ONE_SCREEN_LINES


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_names_a_check_that_exists(page: Path) -> None:
    named = {span for span in codes(page.read_text(encoding="utf-8")) if span.startswith(("tests/", "scripts/"))}
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_numbers_are_given_once() -> None:
    numbers = [page.name[:4] for page in DECISIONS]
    assert numbers == sorted(set(numbers))


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(read("/pyproject.toml"))
    names = {re.split(r"[\[<>=~!]", requirement)[0] for requirement in project["project"]["dependencies"]}
    text = read("decisions/0003-dependencies.md")
    words = set(re.findall(r"[\w-]+", " ".join(rows(text)).lower()))
    assert {name for name in names if not name.startswith("duckdb-extension-")} <= words


def test_the_bounds_that_the_page_explains_are_set() -> None:
    project = tomllib.loads(read("/pyproject.toml"))
    assert any(r.startswith("sqlalchemy") and r.endswith("<2.1") for r in project["project"]["dependencies"])
    constraints = project["tool"]["uv"]["constraint-dependencies"]
    assert any(c.startswith("sqlalchemy") and c.endswith("<2.1") for c in constraints)
    assert any(c.startswith("fastapi") and c.endswith("<0.151") for c in constraints)
