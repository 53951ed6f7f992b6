"""The two lock files: each pip that comes with a Python can install from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.plain_pins import with_plain_pins
from tests.support.command import ROOT

LOCKS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
LOCK = """\
one==1.0 \\
    --hash=sha256:aa
    # via two
two[fast, small]==2.0 ; python_version < '4' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via three
"""


def test_a_pin_with_extras_gets_a_plain_one_before_it() -> None:
    plain = "two==2.0 ; python_version < '4' \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
    before, after = LOCK.split("two[")
    assert with_plain_pins(LOCK) == f"{before}{plain}two[{after}"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_what_is_pinned_with_extras_is_pinned_without(lock: Path) -> None:
    text = lock.read_text()
    with_extras = dict(re.findall(r"^([\w.-]+)\[[^\]]+\]==(\S+)", text, re.MULTILINE))
    plain = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    # Prefect asks for it so, and others without.
    assert "sqlalchemy" in with_extras
    assert with_extras.items() <= plain.items()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash(lock: Path) -> None:
    pins = re.split(r"^(?=[\w.-]+(?:\[[^\]]+\])?==)", lock.read_text(), flags=re.MULTILINE)[1:]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
