"""The product at work inside the test's own process: real catalog, ledger, engine and files, many loads a second.

For faults that have to be walked through one by one; what the command line makes of them is tested with processes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.config import Settings
from app.domain.errors import AutoloaderError
from app.domain.failpoints import Failpoints, Reach
from app.domain.files import FileState
from app.domain.ports import Engine
from app.domain.runs import RunReport
from app.engines.embedded.engine import EmbeddedEngine
from app.services.checking import CheckRequest
from app.services.preflight import LoadRequest
from app.services.run import RunSettings
from app.wiring.product import Product
from tests.support.events import RECORDS, event_file

SUMS = ("_file_path", "id_count", "id_count_distinct", "id_sum", "value_sum", "_batch_id_count_distinct")


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def batch_begins(self, *, files: int, stored_bytes: int) -> None: ...

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None: ...

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None: ...


class QuickProduct(Product):
    """The product with children that stay, and little patience for commits that nobody answers for."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], engine: EmbeddedEngine, reach: Reach | None
    ) -> None:
        super().__init__(settings, environ)
        self._kept = engine
        if reach is not None:
            self._failpoints = Failpoints(reach)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        yield self._kept

    def _run_settings(self) -> RunSettings:
        return replace(super()._run_settings(), unknown_waits_s=(0.01, 0.02))


@dataclass
class Worksite:
    """A source, a table, a ledger; each call is a run of its own."""

    landing: Path
    home: Path
    engine: EmbeddedEngine
    table: str = "local.faults.t"
    environ: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    landed: set[int] = field(default_factory=set)

    def land(self, *numbers: int, **more: Any) -> None:
        """More files in the source, as `tests.support.events` makes them."""
        for number in numbers:
            path = self.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(event_file(number, **more))
            self.landed.add(number)

    def path(self, number: int) -> Path:
        """Where file `number` is."""
        return self.landing / f"batch_{number}.json"

    def product(self, reach: Reach | None = None) -> QuickProduct:
        """As one process has it."""
        settings = Settings(autoloader_home=self.home, **self.settings)
        return QuickProduct(settings, os.environ | dict(self.environ), self.engine, reach)

    def load(self, reach: Reach | None = None) -> RunReport:
        """One run. Raises what kept it from beginning."""
        product = self.product(reach)
        request = LoadRequest(str(self.landing), product.table_name(self.table), {}, wait_s=30.0)
        try:
            return product.load(request, Notes())
        finally:
            product.close()

    def failed_load(self, reach: Reach | None = None) -> AutoloaderError | None:
        """What stopped a run, however early; None where nothing did."""
        try:
            return self.load(reach).stopped_by
        except AutoloaderError as error:
            return error

    def let_leases_run_out(self) -> None:
        """Time passes for a run that could not give its lease back; there need be no ledger."""
        ledger = self.home / "autoloader.db"
        if not ledger.exists():
            return
        with closing(sqlite3.connect(ledger, timeout=60)) as connection:
            if connection.execute("select 1 from sqlite_master where name = 'leases'").fetchone():
                connection.execute("update leases set expires_at = 0")
                connection.commit()

    def highest_epoch(self) -> int:
        """Of the ingestions that wrote the table."""
        product = self.product()
        name = product.table_name(self.table)
        head = product.catalog(name.catalog).head(name)
        assert head is not None
        return max(int(value) for key, value in head.properties.items() if key.endswith(".epoch"))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Count, distinct ids, sums and number of batches in the table, by file."""
        product = self.product()
        name = product.table_name(self.table)
        catalog = product.catalog(name.catalog)
        if catalog.head(name) is None:
            return {}
        rows = catalog.load(name).scan(selected_fields=("id", "value", "_file_path", "_batch_id")).to_arrow()
        catalog.close()
        sums = rows.group_by("_file_path").aggregate(
            [
                ("id", "count"),
                ("id", "count_distinct"),
                ("id", "sum"),
                ("value", "sum"),
                ("_batch_id", "count_distinct"),
            ]
        )
        return {
            path: dict(zip(("n", "ids", "total", "total_value", "batches"), values, strict=True))
            for path, *values in sorted(zip(*(sums[name].to_pylist() for name in SUMS), strict=True))
        }

    def expected(self) -> dict[str, dict[str, Any]]:
        """The same, of a table that is equal to what has landed."""
        made = {}
        for number in self.landed:
            ids = range(number * RECORDS, (number + 1) * RECORDS)
            made[f"file://{self.path(number).resolve()}"] = {
                "n": RECORDS, "ids": RECORDS, "total": sum(ids), "total_value": sum(ids) / 4, "batches": 1,
            }  # fmt: skip
        return dict(sorted(made.items()))

    def assert_whole_files(self) -> None:
        """Each file is in the table whole and once, or not at all."""
        expected = self.expected()
        for path, found in self.rows().items():
            assert found == expected[path], path

    def assert_exact(self) -> None:
        """Table, source and ledger are equal, and `ledger check` finds the same."""
        self.assert_loaded()
        product = self.product()
        name = product.table_name(self.table)
        report = product.check(CheckRequest(name, LoadRequest(str(self.landing), name, {})))
        assert report.equal, report
        assert not report.open_batches

    def assert_loaded(self) -> None:
        """Table, source and ledger are equal."""
        expected = self.expected()
        assert self.rows() == expected
        product = self.product()
        name = product.table_name(self.table)
        files = product.files(name, failed=False, limit=10_000, after=None)
        loaded = [(f.key, f.state, f.rows) for f in files]
        assert sorted(loaded) == [(path, FileState.SUCCESS, RECORDS) for path in expected]
