"""What the scripts of peers have in common: their arguments, where the files are, and the table that they load."""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TABLE = "bench.events"
# Requests to an object store at a time.
REQUESTS = 16


@dataclass(frozen=True)
class Task:
    """What to load where. `source` is a folder, or `s3://bucket/folder`."""

    kind: str
    source: str
    home: Path
    # A file of a thousand rows in the form of the others, for those that keep no table to take a schema from.
    example: Path | None

    @property
    def is_remote(self) -> bool:
        """Whether the files are in an object store."""
        return self.source.startswith("s3://")

    @property
    def pattern(self) -> str:
        """A glob of the files."""
        return f"{self.source}/*"


def task() -> Task:
    """The task that the command line gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("ndjson", "csv", "parquet"), required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--example", type=Path)
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    return Task(given.kind, given.source, given.home, given.example)


def local_files(task: Task) -> list[Path]:
    """The files of a folder, in order."""
    return sorted(path for path in Path(task.source).iterdir() if path.is_file())


def store(task: Task):  # noqa: ANN201 - a store of a library that not every environment has
    """The bucket, and the folder in it."""
    from obstore.store import S3Store  # noqa: PLC0415

    bucket, _, folder = task.source.removeprefix("s3://").partition("/")
    options = {
        "endpoint": os.environ["AWS_ENDPOINT_URL"],
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "region": os.environ["AWS_REGION"],
    }
    opened = S3Store(bucket, virtual_hosted_style_request=False, client_options={"allow_http": True}, **options)
    return opened, folder


def names(task: Task) -> list[str]:
    """What to read: paths of files, or keys of objects."""
    if not task.is_remote:
        return [str(path) for path in local_files(task)]
    bucket, folder = store(task)
    return sorted(meta["path"] for page in bucket.list(folder) for meta in page)


def contents(task: Task, wanted: list[str]) -> list[bytes]:
    """The stored bytes of each."""
    if not task.is_remote:
        return [Path(name).read_bytes() for name in wanted]
    bucket, _ = store(task)
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(lambda name: bytes(bucket.get(name).bytes()), wanted))


def catalog(home: Path):  # noqa: ANN201 - as above
    """The peer's own catalog, in SQLite."""
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415

    (home / "warehouse").mkdir(exist_ok=True)
    return SqlCatalog("bench", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")


def find_table(home: Path):  # noqa: ANN201 - as above
    """The table, None where there is none yet; and its catalog."""
    opened = catalog(home)
    opened.create_namespace_if_not_exists("bench")
    return (opened.load_table(TABLE) if opened.table_exists(TABLE) else None), opened


def make_table(opened, schema):  # noqa: ANN001, ANN201 - as above
    """The table with that Arrow schema, written as zstd Parquet."""
    return opened.create_table(TABLE, schema, properties={"write.parquet.compression-codec": "zstd"})


def done(metadata_location: str) -> None:
    """Say where the table is."""
    print(json.dumps({"metadata": metadata_location}))
