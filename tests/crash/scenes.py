"""Where runs die: files, a home and a table, brought to one of a few states, and the question whether all is exact.

A run that is to die holds a lease of 2 s. On a machine that stands still for longer it may lose it before it comes to
the place where it was to die; that proves nothing, and what it was to leave behind is made anew. A run that has to end
well holds a lease that outlives a stall.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.domain.batch import BatchRef
from app.domain.files import FileState
from app.domain.history import KEEP, LEAST_GOING, MOST
from app.domain.sweeping import manifest_batch
from app.domain.table import MANIFEST_FOLDER, TableName
from app.persistence.ledger import SqlLedger, open_ledger
from app.services.sweeping import Sweeper
from tests.support.forked import Run, Template
from tests.support.seaweed import Seaweed
from tests.support.worlds import rest_environ

ROWS = 20
LEASE_S = 60
# Of a run that is to die.
SHORT_LEASE_S = 2
# So often is tried what a machine that stands still came between.
TRIES = 10
# Of a run that is to stand still. One that stops while it renews its lease takes SQLite's lock along, and nobody gets
# by; so it does not come to renewing it, and time passes by hand.
STANDING_LEASE_S = 240
RENEWED_TIMEOUT_S = 60
# A lease so short that a sweep takes everything for old.
NO_LEASE_S = 0.001
FAILPOINT = "AUTOLOADER_FAILPOINT"
T = TypeVar("T")


class StalledError(Exception):
    """A run that was to die lost its short lease before it came to the place."""


def unstalled(make: Callable[[], T]) -> T:
    """What `make` makes from nothing, with a run that dies, on a machine that may stand still at any moment."""
    for _ in range(TRIES - 1):
        with suppress(StalledError):
            return make()
    return make()


def records(number: int, **more: Any) -> bytes:
    """File `number`: ids that no other file has."""
    rows = ({"id": number * ROWS + n, "value": (number * ROWS + n) / 4, **more} for n in range(ROWS))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Scene:
    """A landing place, a home, a table of one catalog, and runs that are forked."""

    forks: Template
    folder: Path
    seaweed: Seaweed | None = None
    database_url: str = ""
    lease_s: int = LEASE_S
    # 0: as many as a load puts into a batch by itself.
    batch_files: int = 0
    runs: list[Run] = field(default_factory=list)
    name: str = field(default_factory=lambda: f"t_{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self.landing.mkdir(parents=True)
        self.home.mkdir()

    # --- what is there --------------------------------------------------------------------------------------------

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def table(self) -> TableName:
        return TableName("rest" if self.seaweed else "local", ("crash",), self.name)

    def land(self, *numbers: int, **more: Any) -> None:
        """Put files; `more` are columns that they have beside the two."""
        for number in numbers:
            (self.landing / f"{number:03d}.json").write_bytes(records(number, **more))

    @property
    def environ(self) -> dict[str, str]:
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.home), "AUTOLOADER_LEASE_S": str(self.lease_s)}
        if self.seaweed is not None:
            environ |= rest_environ(self.seaweed)
        if self.batch_files:
            environ["AUTOLOADER_BATCH_FILES"] = str(self.batch_files)
        if self.database_url:
            environ["DATABASE_URL"] = self.database_url
        return environ

    @contextmanager
    def ledger(self) -> Iterator[SqlLedger]:
        ledger = open_ledger(self.database_url or f"sqlite:///{self.home}/autoloader.db")
        try:
            yield ledger
        finally:
            ledger.dispose()

    @contextmanager
    def catalog(self) -> Iterator[IcebergCatalog]:
        """The catalog, as this process sees it."""
        if self.seaweed is None:
            catalog = local_catalog(self.home / "warehouse")
        else:
            prefix = "PYICEBERG_CATALOG__REST__"
            given = rest_environ(self.seaweed)
            names = {n: n.removeprefix(prefix).lower().replace("__", ".").replace("_", "-") for n in given}
            catalog = IcebergCatalog("rest", {names[n]: value for n, value in given.items()})
        try:
            yield catalog
        finally:
            catalog.close()

    # --- runs -------------------------------------------------------------------------------------------------------

    def start(self, failpoint: str = "", *options: str, wait_s: int | None = None, lease_s: int | None = None) -> Run:
        """A run of its own process, which stops, dies or dawdles where `failpoint` says."""
        arguments = ["load", str(self.landing), "--to", str(self.table), *options]
        waits = [] if wait_s is None else ["--wait", str(wait_s)]
        environ = self.environ | {FAILPOINT: failpoint}
        if lease_s is not None:
            environ["AUTOLOADER_LEASE_S"] = str(lease_s)
        run = self.forks.start([*arguments, *waits, "--output", "json"], environ, cwd=self.home)
        self.runs.append(run)
        return run

    def load(
        self, failpoint: str = "", *, status: int = 0, wait_s: int | None = None, lease_s: int | None = None
    ) -> Run:
        """A run to its end."""
        run = self.start(failpoint, wait_s=wait_s, lease_s=lease_s)
        assert run.wait() == status, f"{failpoint} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}"
        return run

    def load_and_die(self, failpoint: str) -> None:
        """A run that is killed there.

        Raises:
            StalledError: It was not: the machine was slower than its lease.
        """
        # With --verbose it also tells what it lost its lease over and goes on without.
        run = self.start(failpoint, "--verbose", lease_s=SHORT_LEASE_S)
        if run.wait() != -signal.SIGKILL:
            said = f"{failpoint} was not reached:\n{run.stdout}\n{run.stderr}"
            assert "lease_lost" in said, said
            raise StalledError(said)

    def paused(self, failpoint: str) -> Run:
        """A run that stands still there; its lease holds for a while."""
        run = self.start(failpoint, lease_s=STANDING_LEASE_S)
        run.wait_until_stopped()
        return run

    def clear(self) -> None:
        """Somebody begins the ledger anew."""
        run = self.forks.start(["ledger", "clear", str(self.table), "--yes"], self.environ, cwd=self.home)
        self.runs.append(run)
        assert run.wait() == 0, f"{run.stdout}\n{run.stderr}"

    def wait_until_renewed(self) -> None:
        """Until whoever holds the lease has renewed it after it ran out."""
        deadline = time.monotonic() + RENEWED_TIMEOUT_S
        with self.ledger() as ledger:
            while True:
                with ledger._read() as connection:
                    renewed = connection.exec_driver_sql("select count(*) from leases where expires_at > 0").scalar()
                if renewed:
                    return
                assert time.monotonic() < deadline, "Nobody renewed the lease."
                time.sleep(0.02)

    def let_leases_run_out(self) -> None:
        """Time passes for those who hold one."""
        with self.ledger() as ledger, ledger._write() as connection:
            connection.exec_driver_sql("update leases set expires_at = 0")

    def close(self) -> None:
        for run in self.runs:
            run.close()

    # --- time ---------------------------------------------------------------------------------------------------------

    def age(self) -> None:
        """Let an hour pass for what lies in the warehouse, so that a sweep takes it."""
        then = time.time() - 3600
        for path in (self.home / "warehouse").rglob("*"):
            if path.is_file() and path.suffix in (".parquet", ".json"):
                os.utime(path, (then, then))

    # --- whether all is exact -----------------------------------------------------------------------------------------

    def assert_exact(self, *, is_swept: bool = True) -> None:
        """Table = files = ledger, and nothing is left open, held or, where all of it can be swept, lying about."""
        wanted = self._source()
        with self.ledger() as ledger, self.catalog() as catalog:
            found, batches = self._table(catalog)
            assert found == wanted
            assert self._loaded(ledger) == {key: n for key, (n, *_) in wanted.items()}
            with ledger._read() as connection:
                held = connection.exec_driver_sql("select count(*) from leases where run_id is not null").scalar()
                at_work = connection.exec_driver_sql("select count(*) from runs where status = 'running'").scalar()
                still_open = connection.exec_driver_sql("select count(*) from batches where state = 'open'").scalar()
            assert (held, at_work, still_open) == (0, 0, 0)
            assert max(batches.values(), default=1) == 1, "A file is in two batches."
            if is_swept:
                self._assert_nothing_lies_about(ledger, catalog)

    def _source(self) -> dict[str, tuple[int, int, int, float]]:
        """Key → rows, distinct ids, and two checksums, of each file that has rows."""
        found = {}
        for path in sorted(self.landing.glob("*.json")):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            if rows:
                ids = [row["id"] for row in rows]
                found[f"file://{path}"] = (len(rows), len(set(ids)), sum(ids), sum(row["value"] for row in rows))
        return found

    def _table(self, catalog: IcebergCatalog) -> tuple[dict[str, tuple[int, int, int, float]], Counter[str]]:
        if catalog.head(self.table) is None:
            return {}, Counter()
        table = catalog.load(self.table)
        rows = table.scan(selected_fields=("id", "value", "_file_path", "_batch_id")).to_arrow().to_pylist()
        by_file: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_file.setdefault(row["_file_path"], []).append(row)
        sums = {
            key: (len(mine), len({r["id"] for r in mine}), sum(r["id"] for r in mine), sum(r["value"] for r in mine))
            for key, mine in by_file.items()
        }
        return sums, Counter(key for key, _ in {(r["_file_path"], r["_batch_id"]) for r in rows})

    def _loaded(self, ledger: SqlLedger) -> dict[str, int | None]:
        record = ledger.table(str(self.table))
        assert record is not None
        known = list(ledger.files_after(record, ""))
        assert {f.state for f in known} <= {FileState.SUCCESS, FileState.SKIPPED}
        return {f.key: f.rows for f in known if f.state is FileState.SUCCESS}

    def _assert_nothing_lies_about(self, ledger: SqlLedger, catalog: IcebergCatalog) -> None:
        """After a sweep nothing of ours is left but what the table names."""
        if catalog.head(self.table) is None:
            return
        Sweeper(ledger, catalog, self.table, lease_s=NO_LEASE_S, grace=timedelta()).sweep()
        lying = {f.name for f in catalog.data_folder(self.table)}
        references = catalog.references(self.table, lying)
        assert lying - references.names == set()
        # Where a catalog takes files only beside the metadata, the folder of the manifests is not ours alone.
        committed = {c.batch.batch_id for c in references.commits}
        ingestions = {c.batch.ingestion_id for c in references.commits}
        if references.head.history_cut:
            # Then the metadata knows of some no more.
            record = ledger.table(str(self.table))
            assert record is not None
            known = (b for b in ledger.batch_records(record) if not b.is_empty)
            committed.update(BatchRef(b.ingestion_id, b.number, 0).batch_id for b in known)
        manifests = [manifest_batch(f.name, ingestions) for f in catalog.manifest_folder(self.table)]
        assert [m for m in manifests if m is not None and m.batch_id not in committed] == []

    def assert_no_metadata_lies_about(self) -> None:
        """Beside a table of the built-in catalog, of which no run was killed amid a commit of rows."""
        with self.catalog() as catalog:
            table = catalog.load(self.table)
            snapshots = table.metadata.snapshots
            named = {s.manifest_list for s in snapshots}
            named.update(m.manifest_path for s in snapshots for m in s.manifests(table.io))
            assert {str(p) for p in Path(table.location(), "metadata").glob("*.avro")} == named
            assert list(Path(table.properties[MANIFEST_FOLDER], "expired").iterdir()) == []


# --- states -----------------------------------------------------------------------------------------------------------


def first(scene: Scene) -> None:
    """Three files and an empty one, no table."""
    scene.land(0, 1, 2)
    (scene.landing / "empty.json").write_bytes(b"")


def later(scene: Scene) -> None:
    """A table of two loads; new are two files, one of which has a column that the table lacks, and an empty one."""
    scene.land(0, 1, 2)
    scene.load()
    scene.land(3)
    scene.load()
    scene.land(4, region="north")
    scene.land(5)
    (scene.landing / "empty.json").write_bytes(b"")


def interrupted(scene: Scene) -> None:
    """A table, a batch that its run left open behind its data files, and leftovers that are old enough to be swept."""
    later(scene)
    scene.load_and_die("commit_request:before")
    scene.age()


def landed(scene: Scene) -> None:
    """A table, and a batch that is in it while the ledger says that it is open."""
    later(scene)
    scene.load_and_die("commit_request:after")
    scene.age()


def lost(scene: Scene) -> None:
    """A table of two loads whose ledger is gone."""
    later(scene)
    for file in scene.home.glob("autoloader.db*"):
        file.unlink()


def long(scene: Scene) -> None:
    """A table that lost old snapshots a while ago and has so many again that the next commit lets some go."""
    scene.batch_files = 1
    scene.land(0, 1, 2)
    scene.load()
    with scene.catalog() as catalog, catalog.load(scene.table).transaction() as transaction:
        transaction.set_properties({KEEP: "1", MOST: "2"})
    # One of these commits takes the snapshots before it along, and so will the one after them.
    scene.land(*range(3, 2 * LEAST_GOING))
    scene.load()
    scene.age()
    scene.batch_files = 0
    scene.land(50, 51)


State = Callable[[Scene], None]


@dataclass
class Prepared:
    """Scenes of the built-in catalog that are brought to their state once, and laid out again for each test."""

    forks: Template
    folder: Path
    kept: dict[str, str] = field(default_factory=dict)

    def scene(self, state: State) -> Scene:
        """A scene in that state. Its place is always the same, for the table knows where it is."""
        place, copy = self.folder / state.__name__, self.folder / f"{state.__name__}.kept"
        if state.__name__ not in self.kept:
            scene = unstalled(lambda: self._made(state, place))
            shutil.copytree(place, copy)
            self.kept[state.__name__] = scene.name
            return scene
        shutil.rmtree(place)
        scene = Scene(self.forks, place, name=self.kept[state.__name__])
        shutil.rmtree(place)
        shutil.copytree(copy, place)
        return scene

    def _made(self, state: State, place: Path) -> Scene:
        # What a try that came to nothing left there.
        shutil.rmtree(place, ignore_errors=True)
        scene = Scene(self.forks, place)
        with closing(scene):
            state(scene)
        return scene
