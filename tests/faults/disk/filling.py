"""Walks through the sizes at which a disk is too small for a load; a test runs it on a small disk, as

    python -m tests.faults.disk.filling PLACE LOAD UNIT STEP DISK FOLDER

PLACE is what lies on the disk, LOAD is `first` or `later`, UNIT what is short (`pages` or `files`), STEP how much of it
is added from one load to the next. A line of JSON for every load says how much was free, and what the load said.
"""  # noqa: D415  # a command is no sentence

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from app.domain.errors import AutoloaderError
from app.engines.embedded.engine import EmbeddedEngine
from tests.support.disks import Balloon
from tests.support.worksite import Worksite


def warehouse(folder: Path, disk: Path, engine: EmbeddedEngine) -> Worksite:
    """Data, metadata and catalog are on the disk, the ledger is not."""
    settings = {"autoloader_warehouse": disk / folder.name}
    return Worksite(folder / "landing", folder / "home", engine, settings=settings)


def ledger(folder: Path, disk: Path, engine: EmbeddedEngine) -> Worksite:
    """Only the ledger is on the disk."""
    settings = {"autoloader_warehouse": folder / "warehouse"}
    return Worksite(folder / "landing", disk / folder.name, engine, settings=settings)


def catalog(folder: Path, disk: Path, engine: EmbeddedEngine) -> Worksite:
    """Only the database of an SQL catalog is on the disk."""
    (folder / "warehouse").mkdir(parents=True)
    prefix = "PYICEBERG_CATALOG__SQL__"
    os.environ |= {
        f"{prefix}TYPE": "sql",
        f"{prefix}URI": f"sqlite:///{disk}/{folder.name}.db",
        f"{prefix}WAREHOUSE": str(folder / "warehouse"),
    }
    return Worksite(folder / "landing", folder / "home", engine, table="sql.faults.t")


PLACES = {"warehouse": warehouse, "ledger": ledger, "catalog": catalog}


def walk(
    make: Callable[[int], Worksite], balloon: Balloon, leave: Callable[[int], None], *, first: bool, step: int
) -> None:
    """Load with more and more space, until it is enough; after each failure the next load makes everything right."""
    site = make(0)
    if not first:
        site.land(0)
        site.load()
    number, free = 0, 0
    error: AutoloaderError | None = None
    while number == 0 or error is not None:
        number += 1
        if first:
            site = make(number)
        site.land(number)
        leave(free)
        error = site.failed_load()
        balloon.burst()
        said = {"code": error.code, "message": error.message, "remedy": error.advice} if error else {}
        print(json.dumps({"free": free, **said}), flush=True)
        site.assert_whole_files()
        # One that could not be given back on a full disk.
        site.let_leases_run_out()
        assert site.load().stopped_by is None
        site.assert_loaded()
        free += step
    site.assert_exact()


def main(  # noqa: PLR0917 - as on the command line
    place: str, load: str, unit: str, step: int, disk: Path, folder: Path
) -> None:
    """Walk."""
    engine = EmbeddedEngine(processes=1)
    balloon = Balloon(disk)
    leave = balloon.leave_files if unit == "files" else balloon.leave_pages

    def make(number: int) -> Worksite:
        return PLACES[place](folder / f"n{number}", disk, engine)

    try:
        walk(make, balloon, leave, first=load == "first", step=step)
    finally:
        engine.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6]))
