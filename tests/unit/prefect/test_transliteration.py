"""Prefect's library must not have every process hold a table that nothing in it is looked up in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.command import ROOT

LOOKED = """
import sys
{first}
from prefect.blocks.core import Block
from slugify import slugify

def has_table():
    return hasattr(sys.modules.get("text_unidecode"), "_replaces")

class Other(Block):
    _block_type_name = "Some other block"

answer = [Other.get_block_type_slug(), slugify("All of it in ASCII"), has_table()]
print(answer + [slugify("Äpfel und Öl – \u4e2d"), slugify("Äpfel"), slugify("plain"), has_table()])
"""
SERVER = "import app.prefect.server"
CLIENT = """
from app.services.prefect_connection import PrefectConnection
PrefectConnection("http://127.0.0.1:9/api", timeout_s=1, pause_s=1)
PrefectConnection("http://127.0.0.1:9/api", timeout_s=1, pause_s=1)
"""


@pytest.mark.parametrize(("first", "early"), [(SERVER, False), (CLIENT, False), ("", True)])
def test_the_table_is_read_with_the_first_text_that_needs_it(first: str, *, early: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOKED.format(first=first)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    expected = ["some-other-block", "all-of-it-in-ascii", early, "apfel-und-ol-zhong", "apfel", "plain", True]
    assert done.stdout.strip() == repr(expected)
