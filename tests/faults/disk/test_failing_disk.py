"""Each kind of write of a load fails once, with EIO and ENOSPC: said clearly, nothing lost, doubled or half there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.disk.conftest import MakeSite
from tests.support.command import Done, Home
from tests.support.tracing import Fault, hit
from tests.support.worksite import Worksite

LEDGER, CATALOG = "home/autoloader.db", "home/warehouse/catalog.db"
# What a disk that fails may be called. Never `internal`, and never a failure of a source file.
DISK = {"write_failure", "ledger_write_failure", "commit_unknown"}
READS = {"ledger_unreadable", "catalog_unreachable", "table_unreadable"}
# Which of a child's writes is that of its data file: what it tells its parent before is merged as time goes.
MAYBE_DATA = "9,8,10,7,11,6,9,8,10,7,11,6"


def on(path: str, calls: str, error: str, when: str = "1+") -> Fault:
    """Calls on one file whose name is known."""
    return Fault(calls, error, when, (path,))


def faults() -> dict[str, tuple[Fault, str]]:
    """Name → fault, and a part of the path that it must hit."""
    found = {
        "data-write-full": (Fault("write", "ENOSPC", MAYBE_DATA), "/data/"),
        "data-write": (Fault("write", "EIO", MAYBE_DATA), "/data/"),
        "data-fsync": (Fault("fsync", "EIO", "1"), ".parquet"),
        "manifest-write": (Fault("write", "EIO", "1", follow=False), ".part"),
        "manifest-fsync": (Fault("fsync", "EIO", "1", follow=False), ".part"),
        "manifest-rename": (Fault("rename", "EIO", "1", follow=False), ".part"),
        "manifest-list-write": (Fault("write", "EIO", "2", follow=False), "/metadata/snap-"),
        "metadata-write-full": (Fault("write", "ENOSPC", "3", follow=False), ".metadata.json"),
        # In the middle of the run's steps in the ledger.
        "ledger-claim": (on(f"{LEDGER}-wal", "pwrite64", "EIO", "12+"), "-wal"),
        "ledger-close": (on(f"{LEDGER}-wal", "pwrite64", "EIO", "24+"), "-wal"),
    }
    for name, file in (("ledger", LEDGER), ("catalog", CATALOG)):
        found[f"{name}-open"] = on(file, "openat", "EIO"), ".db"
        found[f"{name}-read"] = on(file, "pread64", "EIO"), ".db"
        found[f"{name}-log-write"] = on(f"{file}-wal", "pwrite64", "EIO"), "-wal"
        found[f"{name}-log-fsync"] = on(f"{file}-wal", "fdatasync", "EIO"), "-wal"
        found[f"{name}-index-size"] = on(f"{file}-shm", "ftruncate", "EIO"), "-shm"
        found[f"{name}-checkpoint"] = on(file, "pwrite64,fdatasync,ftruncate", "EIO"), ".db"
    return found


FAULTS = faults()


def load_with(fault: Fault, site: Worksite, folder: Path, when: str) -> tuple[list[str], Done]:
    """What the fault hit, and how the load ended."""
    log = folder / "log"
    fault = Fault(fault.calls, fault.error, when, [str(folder / path) for path in fault.paths], fault.follow)
    done = Home(site.home).run(
        *("load", str(site.landing), "--to", site.table, "--output", "json"),
        # Compiled modules would be written too.
        environ={"PYTHONDONTWRITEBYTECODE": "1"},
        before=fault.command(log),
    )
    return hit(log), done


# A process under strace, and a commit that is asked for again and again.
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("name", FAULTS)
def test_a_write_that_fails(make_site: MakeSite, tmp_path: Path, name: str) -> None:
    fault, place = FAULTS[name]
    for turn, when in enumerate(fault.when.split(",")):
        folder = tmp_path / str(turn)
        site = make_site(folder)
        site.land(1, more="x")
        hits, done = load_with(fault, site, folder, when)
        if any(place in at for at in hits):
            break
    assert any(place in at for at in hits), hits
    assert "Traceback" not in done.stderr
    report = done.json
    assert report["files"]["failed"] == 0, report
    site.assert_whole_files()
    if done.status == 0:
        site.assert_exact()
    else:
        assert done.status == 1
        assert report["code"] in DISK | READS, report
    assert site.load().stopped_by is None
    site.assert_exact()


def test_a_source_file_that_cannot_be_read_is_that_files_failure_and_tried_again(
    site: Worksite, tmp_path: Path
) -> None:
    site.land(1, 2)
    fault = Fault("pread64", "EIO", "1+", (str(site.path(2)),))
    done = Home(site.home).run(
        *("load", str(site.landing), "--to", site.table, "--output", "json"), before=fault.command(tmp_path / "log")
    )
    assert hit(tmp_path / "log")
    assert (done.status, done.json["status"]) == (3, "partial")
    assert (done.json["files"]["loaded"], done.json["files"]["failed"]) == (1, 1)
    (error,) = done.json["errors"]
    assert (error["category"], error["retryable"]) == ("connectivity", True)
    assert error["file"].endswith("batch_2.json")
    assert "Input/output error" in error["message"]
    site.load()
    site.assert_exact()
