"""What the documents mention exists: options, commands, settings, modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.config import Settings
from app.wiring.product import FAILPOINT_VARIABLE
from tests.docs.pages import ROOT, pages
from tests.docs.test_reference import COMMANDS

OPTIONS = {name for options in COMMANDS.values() for option in options for name in option.names} | {"--help"}
# Options of other programs that the documents tell people to use.
OTHERS = {"--now", "--format", "--require-hashes", "--pool", "--init"}
# What only tests set is not among the settings.
SETTINGS = {name.upper() for name in Settings.model_fields} | {FAILPOINT_VARIABLE}
FIRST_WORDS = {name.split()[0] for name in COMMANDS if name}


def unknown_mentions(text: str) -> list[str]:
    """Options, commands and settings that a page mentions and nobody knows."""
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - OPTIONS - OTHERS
    settings = set(re.findall(r"\bAUTOLOADER_[A-Z_]+\b", text)) - SETTINGS
    commands = set(re.findall(r"^(?:`|\$ )?autoloader ([a-z-]+)", text, re.MULTILINE)) - FIRST_WORDS
    modules = {path for path in re.findall(r"`(app/[\w/.]+)`", text) if not (ROOT / path).exists()}
    return sorted(options | settings | commands | modules)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_what_is_mentioned_exists(page: Path) -> None:
    assert unknown_mentions(page.read_text(encoding="utf-8")) == []


def test_what_does_not_exist_is_found() -> None:
    text = "autoloader lode x --too y\nset `AUTOLOADER_HOUSE`, see `app/nowhere.py`"
    assert unknown_mentions(text) == ["--too", "AUTOLOADER_HOUSE", "app/nowhere.py", "lode"]
