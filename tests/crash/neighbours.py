"""Others at work on the same table, as processes of their own: a second ingestion, a writer, and upkeep.

python -P -m tests.crash.neighbours second SOURCE PATTERN TABLE     one run of another ingestion of this ledger
python -P -m tests.crash.neighbours write|expire NAME TABLE         again and again, until stopped; properties on stdin
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy.exc import OperationalError

from app.cli.load import report_document
from app.config import read_settings
from app.domain.errors import AutoloaderError
from app.domain.ledger import Ledger
from app.domain.runs import RunReport, RunStatus, TableRecord
from app.domain.watch import Watcher
from app.services.preflight import LoadRequest
from app.wiring.product import Product
from tests.unit.services.desk import Notes

SECOND = "5ec0d" + "0" * 27
# The rows of the other writer: their ids are above every one of a file.
STRANGE = 10_000_000
# So many times as long as its work took does a neighbour rest, so that also a slow machine leaves others their turn.
REST = 5


class _Second:
    """A ledger in which the run is one of another ingestion."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def ensure_load_ingestion(self, table: TableRecord, _: str) -> str:
        self._ledger.adopt(table, SECOND)
        return SECOND


class SecondProduct(Product):
    """The product as a second ingestion uses it."""

    @contextmanager
    def _lazy_ledger(self, watcher: Watcher) -> Iterator[Callable[[], Ledger]]:
        with super()._lazy_ledger(watcher) as open_it:
            yield lambda: _Second(open_it())


def second(source: str, pattern: str, table: str) -> None:
    product = SecondProduct(read_settings(), os.environ)
    request = LoadRequest(source, product.table_name(table), {"file_pattern": pattern}, wait_s=product.default_wait_s)
    try:
        report = product.load(request, Notes())
    except AutoloaderError as error:
        report = RunReport(run_id="", table=table, status=RunStatus.FAILED, stopped_by=error)
    sys.stdout.write(json.dumps(report_document(report, 0.0)))


def write(table: Table, number: int) -> bool:
    table.append(pa.table({"id": pa.array([STRANGE + number], pa.int64())}))
    return True


def expire(table: Table, _: int) -> bool:
    current = table.metadata.current_snapshot_id
    old = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id != current]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()
    return bool(old)


def go_on(work: Callable[[Table, int], bool], name: str, table: str) -> None:
    """Do it again and again; who meets another writer, or finds nothing to do, tries again later.

    Says on stdout each time that something was done.
    """
    catalog = load_catalog(name, **json.load(sys.stdin))
    number = 0
    while True:
        began = time.monotonic()
        try:
            done = work(catalog.load_table(table), number)
        except (CommitFailedException, NoSuchTableError, OperationalError):
            done = False
        if done:
            number += 1
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
        time.sleep(REST * (time.monotonic() - began))


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "second":
        second(*arguments)
    else:
        go_on({"write": write, "expire": expire}[what], *arguments)
