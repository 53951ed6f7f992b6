"""The files that are loaded: made once from a seed, the same on every machine, and kept in a folder.

Rows are events: an id that counts up from 0, a time, and columns whose values come from a hash of id and seed. So the
number of rows and the sum of the ids tell whether all were loaded, each once.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import duckdb

SEED = 7
# Raised when other rows are made from the same seed.
RECIPE = 1
# Rows of the file that makes the table before a second load; the data set's own ids begin behind them.
EXAMPLE_ROWS = 1_000
MB = 1_000_000
KINDS = ("view", "click", "cart", "purchase", "refund")
CITIES = ("Berlin", "Zürich", "Kraków", "Lyon", "Bologna", "Gent", "Porto", "Malmö")
WORDS = ("late", "gift, wrapped", "call first", "second floor", "fragile", "paid in cash", "back door", "again")


@dataclass(frozen=True)
class Spec:
    """What a data set is at scale 1: `text_mb` of text, for Parquet stored, in so many files."""

    kind: str
    files: int
    text_mb: float
    shape: str = "flat"
    gzipped: bool = False
    # At another scale there are more or fewer files of one size, instead of as many of another.
    scales_files: bool = False


SPECS = {
    "small": Spec("ndjson", 5_000, 50, scales_files=True),
    "gz": Spec("ndjson", 10, 300, gzipped=True),
    "csv": Spec("csv", 10, 300),
    "parquet": Spec("parquet", 10, 250),
    "big": Spec("ndjson", 1, 2_000),
    "wide": Spec("ndjson", 4, 100, shape="wide"),
    "known": Spec("ndjson", 1_000, 1, scales_files=True),
    "nested": Spec("ndjson", 4, 100, shape="nested"),
}


@dataclass(frozen=True)
class DataSet:
    """Files that are there. `rows` and `id_sum` are those of the files alone, without the example."""

    name: str
    kind: str
    folder: Path
    files: int
    rows: int
    stored_bytes: int

    @property
    def source(self) -> Path:
        """The folder of the files."""
        return self.folder / "files"

    @property
    def example(self) -> Path:
        """A folder with one small file of the same columns, for making a table beforehand."""
        return self.folder / "example"

    @property
    def id_sum(self) -> int:
        """What the ids of the files add up to."""
        return sum_of_ids(self.rows)


def sum_of_ids(rows: int) -> int:
    """The sum of the ids of a data set of so many rows."""
    return (2 * EXAMPLE_ROWS + rows - 1) * rows // 2


def data_set(root: Path, name: str, *, scale: float = 1.0, seed: int = SEED) -> DataSet:
    """The data set of that name below `root`, made when it is missing or was made otherwise.

    Args:
        root: The folder of data sets of one scale.
        name: A key of SPECS.
        scale: What to multiply the size with.
        seed: Decides all values.
    """
    folder = root / name
    note = folder / "data.json"
    recipe = {"version": RECIPE, "spec": asdict(SPECS[name]), "scale": scale, "seed": seed}
    if not note.exists() or json.loads(note.read_text()).get("recipe") != recipe:
        making = folder.with_name(f"{name}.making")
        shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        made = _make(making, name, SPECS[name], scale, seed)
        (making / "data.json").write_text(json.dumps({"recipe": recipe, "made": asdict(made) | {"folder": name}}))
        making.rename(folder)
    return DataSet(**{**json.loads(note.read_text())["made"], "folder": folder})


def key_folder(root: Path, count: int) -> Path:
    """A folder of so many files, a thousand a folder, that hold nothing that anybody reads; made when it is missing.

    They have a size and take no room: what counts is that they are listed.
    """
    folder = root / f"keys-{count}"
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        for name in key_names(count):
            path = making / name
            if name.endswith("-000.json"):
                path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                file.truncate(100)
        making.rename(folder)
    return folder


def key_names(count: int) -> Iterator[str]:
    """Names in key order."""
    return (f"part-{i // 1000:05d}/event-{i % 1000:03d}.json" for i in range(count))


def read_through(source: Path) -> None:
    """Read every file once, so that no contender is the one who waits for the disk."""
    for path in sorted(source.iterdir()):
        with path.open("rb") as file:
            while file.read(1 << 22):
                pass


def _make(folder: Path, name: str, spec: Spec, scale: float, seed: int) -> DataSet:
    (folder / "files").mkdir(parents=True)
    (folder / "example").mkdir()
    connection = duckdb.connect()
    # One thread, so that rows come in one order.
    connection.execute("set threads = 1")
    files = max(2, round(spec.files * scale)) if spec.scales_files else spec.files
    size_bytes = spec.text_mb * MB / spec.files if spec.scales_files else spec.text_mb * MB * scale / files
    writer = _Writer(connection, folder / "work", spec, seed)
    per_file = max(1, round(size_bytes / writer.bytes_per_row()))
    writer.write(folder / "example" / f"example.{_ending(spec)}", 0, EXAMPLE_ROWS)
    # Many small files are cut out of large ones: each statement of the database costs more than such a file.
    group = max(1, min(files, 20_000 // per_file)) if spec.scales_files else 1
    for first in range(0, files, group):
        paths = [folder / "files" / f"events-{i:05d}.{_ending(spec)}" for i in range(first, min(first + group, files))]
        writer.write_group(paths, EXAMPLE_ROWS + first * per_file, per_file)
    shutil.rmtree(folder / "work", ignore_errors=True)
    stored = sum(path.stat().st_size for path in (folder / "files").iterdir())
    return DataSet(name, spec.kind, folder, files, files * per_file, stored)


def _ending(spec: Spec) -> str:
    return {"ndjson": "json", "csv": "csv", "parquet": "parquet"}[spec.kind] + (".gz" if spec.gzipped else "")


@dataclass
class _Writer:
    """Writes rows of one data set."""

    connection: duckdb.DuckDBPyConnection
    work: Path
    spec: Spec
    seed: int

    def bytes_per_row(self) -> float:
        """About what a row takes, stored for Parquet, else as text."""
        rows = 50_000 if self.spec.kind == "parquet" else 2_000
        probe = replace(self, spec=replace(self.spec, gzipped=False))
        path = self.work.with_name("probe")
        # In the middle of the ids, where they have as many digits as most.
        probe.write(path, 1_000_000, rows)
        size = path.stat().st_size
        path.unlink()
        return size / rows

    def write_group(self, paths: list[Path], first_id: int, per_file: int) -> None:
        """Write files of `per_file` rows each."""
        if len(paths) == 1:
            self.write(paths[0], first_id, per_file)
            return
        self.write(self.work, first_id, per_file * len(paths))
        with self.work.open("rb") as lines:
            for path in paths:
                path.write_bytes(b"".join(islice(lines, per_file)))

    def write(self, path: Path, first_id: int, rows: int) -> None:
        """Write one file."""
        select = select_rows(self.spec.shape, first_id, first_id + rows, self.seed)
        forms = {
            "ndjson": "json, compression none",
            "csv": "csv, header true",
            "parquet": "parquet, compression snappy",
        }
        if self.spec.kind == "parquet":
            select = f"select * replace (cast(happened_at as timestamptz) as happened_at) from ({select})"
        self.connection.execute("set timezone = 'UTC'")
        self.connection.execute(f"copy ({select}) to '{path}' (format {forms[self.spec.kind]})")
        if self.spec.gzipped:
            data = path.read_bytes()
            # Without a time in the header: the same bytes every time.
            path.write_bytes(gzip.compress(data, compresslevel=6, mtime=0))


def select_rows(shape: str, first: int, end: int, seed: int) -> str:
    """The query that gives the rows of ids from `first` to `end` (excluded)."""
    columns = {"flat": _flat, "wide": _wide, "nested": _nested}[shape](seed)
    return f"select i as event_id, {_time(seed)} as happened_at, {', '.join(columns)} from range({first}, {end}) t(i)"


def _dice(number: int, seed: int, below: int) -> str:
    return f"(hash(i, {number}, {seed}) % {below})::bigint"


def _one_of(number: int, seed: int, texts: tuple[str, ...]) -> str:
    listed = ", ".join(f"'{text}'" for text in texts)
    return f"[{listed}][1 + {_dice(number, seed, len(texts))}]"


def _time(seed: int) -> str:
    moment = f"timestamp '2026-01-01' + to_microseconds(i * 2719000 + {_dice(1, seed, 1000)} * 1000)"
    return f"strftime({moment}, '%Y-%m-%dT%H:%M:%S.%gZ')"


def _flat(seed: int) -> list[str]:
    return [
        f"{_dice(2, seed, 50_000)} as user_id",
        f"{_one_of(3, seed, KINDS)} as kind",
        f"{_one_of(4, seed, CITIES)} as city",
        f"(100 + {_dice(5, seed, 90_000)}) / 100.0::double as price",
        f"1 + {_dice(6, seed, 9)} as quantity",
        f"{_dice(7, seed, 30)} > 1 as paid",
        f"printf('%016x', hash(i, 8, {seed})) as session",
        f"case when {_dice(9, seed, 4)} = 0 then {_one_of(10, seed, WORDS)} end as note",
    ]


def _wide(seed: int) -> list[str]:
    kinds = (
        lambda n: f"{_dice(n, seed, 1_000_000)}",
        lambda n: f"{_dice(n, seed, 1_000_000)} / 100.0::double",
        lambda n: _one_of(n, seed, CITIES),
        lambda n: f"{_dice(n, seed, 2)} = 1",
    )
    return [f"{kinds[n % len(kinds)](n + 20)} as c{n:02d}" for n in range(98)]


def _nested(seed: int) -> list[str]:
    sku = f"printf('%08x', hash(i, j, {seed}) % 4294967296)"
    quantity = f"1 + (hash(i, j, 1, {seed}) % 9)::bigint"
    price = f"(hash(i, j, 2, {seed}) % 10000) / 100.0::double"
    item = f"{{'sku': {sku}, 'quantity': {quantity}, 'price': {price}}}"
    place = f"{{'lat': {_dice(6, seed, 9000)} / 100.0::double, 'lon': {_dice(7, seed, 18000)} / 100.0::double}}"
    return [
        f"{{'city': {_one_of(4, seed, CITIES)}, 'till': {_dice(5, seed, 9)}, 'geo': {place}}} as store",
        f"list_transform(range(1 + {_dice(3, seed, 4)}), lambda j: {item}) as items",
        f"[{_one_of(8, seed, KINDS)}, {_one_of(9, seed, WORDS)}] as tags",
        f"{_dice(10, seed, 30)} > 1 as paid",
    ]
