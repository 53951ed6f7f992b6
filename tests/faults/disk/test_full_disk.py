"""A disk is full at any point of a load: the place is named, nothing is lost or doubled, and space is all it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import ROOT, Home
from tests.support.disks import on_small_disk
from tests.support.events import event_file

DISK_KB = 16 * 1024


def walked(place: str, load: str, unit: str, step: int, tmp_path: Path) -> list[dict[str, Any]]:
    """What the load said at each size, the last of which was enough."""
    disk, folder = tmp_path / "disk", tmp_path / "elsewhere"
    done = subprocess.run(
        [
            *on_small_disk(disk, DISK_KB),
            *(sys.executable, "-m", "tests.faults.disk.filling", place, load, unit, str(step), str(disk), str(folder)),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"{said[-3:]}\n{done.stderr}"
    assert not said.pop().get("code")
    return said


# Dozens of loads each.
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize(
    ("place", "load", "unit", "step", "codes", "named"),
    [
        (
            "warehouse",
            "later",
            "pages",
            1,
            {"write_failure", "catalog_unreachable"},
            {"/t/data/", "/manifests/", "/t/metadata", "catalog"},
        ),
        # SQLite needs a file of its own to open the catalog at all, and does not say that there is no space for it.
        # The catalog takes more than data file, manifest and metadata of a first load do.
        (
            "warehouse",
            "first",
            "pages",
            2,
            {"write_failure", "catalog_unreachable"},
            {"catalog.db"},
        ),
        ("ledger", "later", "pages", 2, {"ledger_write_failure"}, {"autoloader.db"}),
        ("ledger", "first", "pages", 6, {"ledger_write_failure"}, {"autoloader.db"}),
        ("catalog", "first", "pages", 1, {"write_failure"}, {"catalog"}),
        (
            "warehouse",
            "later",
            "files",
            1,
            {"write_failure", "catalog_unreachable"},
            # What the catalog needs to be opened is free again when data file and manifest are written.
            {"/t/metadata"},
        ),
    ],
)
def test_every_size_that_is_too_small(  # noqa: PLR0917 - a table's columns
    tmp_path: Path, place: str, load: str, unit: str, step: int, codes: set[str], named: set[str]
) -> None:
    said = walked(place, load, unit, step, tmp_path)
    assert len(said) >= 3
    assert {one["code"] for one in said} <= codes, said
    for one in said:
        assert (
            "full" in one["message"]
            or "No space left" in one["message"]
            or "disk I/O error" in one["message"]
            or "unable to open" in one["message"]
        ), one
        assert "space" in one["remedy"], one
    texts = " ".join(one["message"] for one in said)
    assert {part for part in named if part in texts} == named, texts


def test_the_command_says_what_is_full_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    """A disk of 64 KB, then one of 16 MB."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "batch_0.json").write_bytes(event_file(0))
    home = Home(folder)
    for size_kb in (64, DISK_KB):
        done = home.run(
            *("load", str(tmp_path / "landing"), "--to", "a.t"), before=on_small_disk(folder / "warehouse", size_kb)
        )
        if size_kb == DISK_KB:
            assert done.status == 0, done.stderr
        else:
            assert done.status == 1
            assert "Error (write_failure): " in done.stderr
            # Of the catalog's own database, the library does not say which file it was.
            assert f"{folder}/warehouse/" in done.stderr or "The catalog of local.a.t" in done.stderr
            assert "Check space" in done.stderr
            assert "Traceback" not in done.stderr
