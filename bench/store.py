"""An S3 server on this machine, started when a case first asks for it, with the data sets put into it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.data import key_names
from tests.support.seaweed import Seaweed, start_seaweed, stop_seaweed

BUCKET = "bench"
WRITERS = 16


class Store:
    """The server of one run of the harness."""

    def __init__(self) -> None:
        self._server: Seaweed | None = None
        self._there: set[str] = set()

    @property
    def environ(self) -> dict[str, str]:
        """The server's address and key, as environment variables."""
        return self._started().environ

    def put_folder(self, folder: Path, name: str) -> str:
        """Put a folder's files below that name, once; the URI of what they are below."""
        return self._put(name, [(path.name, path) for path in sorted(folder.iterdir())])

    def put_keys(self, count: int) -> str:
        """Put so many small objects, once; the URI of what they are below."""
        return self._put(f"keys-{count}", [(name, b"1") for name in key_names(count)])

    def stop(self) -> None:
        """End the server and remove what is in it. Idempotent."""
        if self._server is not None:
            stop_seaweed(self._server)
            self._server = None

    def _started(self) -> Seaweed:
        if self._server is None:
            self._server = start_seaweed()
            self._server.create_bucket(BUCKET)
        return self._server

    def _put(self, name: str, objects: list[tuple[str, Path]] | list[tuple[str, bytes]]) -> str:
        if name not in self._there:
            store = self._started().store(BUCKET)
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(lambda one: store.put(f"{name}/{one[0]}", one[1]), objects))
            self._there.add(name)
        return f"s3://{BUCKET}/{name}"
