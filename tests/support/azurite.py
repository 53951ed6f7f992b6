"""A real Blob service on loopback: Azurite, one for all workers of a test run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

from obstore.store import AzureStore

from tests.support.servers import Server, free_ports, is_there, shared, spawn, started, stop

ROOT = Path(__file__).resolve().parents[2]
INSTALL = ROOT / "scripts" / "test-servers.sh"
# The emulator's own, which is the same everywhere.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
API = "2021-12-02"


@dataclass(frozen=True)
class Azurite(Server):
    """Where a running emulator answers, and the key that may do everything there."""

    port: int
    account: str = ACCOUNT
    key: str = KEY

    @property
    def endpoint(self) -> str:
        """URL of the account's Blob service."""
        return f"http://127.0.0.1:{self.port}/{self.account}"

    @property
    def credentials(self) -> dict[str, str]:
        """The account's key in the form of `source.credentials`."""
        return {"account_name": self.account, "account_key": self.key, "endpoint_url": self.endpoint}

    @property
    def environ(self) -> dict[str, str]:
        """The account's key as environment variables."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
        }

    def store(self, container: str) -> AzureStore:
        """An obstore store on `container`."""
        return AzureStore(
            container,
            account_name=self.account,
            account_key=self.key,
            endpoint=self.endpoint,
            client_options={"allow_http": True},
        )

    def create_bucket(self, name: str) -> str:
        """Make an empty container; its name is given back."""
        self.request("PUT", f"/{name}", query={"restype": "container"})
        return name

    def put(self, container: str, objects: Mapping[str, bytes]) -> None:
        """Write blobs, name to content. A name that ends in "/" makes a folder, marked as Azure's own tools do."""
        store = self.store(container)
        for name, data in objects.items():
            if name.endswith("/"):
                marked = {"x-ms-blob-type": "BlockBlob", "x-ms-meta-hdi_isfolder": "true"}
                self.request("PUT", f"/{container}/{name.rstrip('/')}", data, headers=marked)
            else:
                store.put(name, data)

    def sas_token(self, *, permissions: str = "rl") -> str:
        """A signature that lets its holder do what `permissions` say, for an hour."""
        expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = {"sp": permissions, "ss": "b", "srt": "sco", "st": "", "se": expiry, "sip": "", "spr": "", "sv": API}
        signed = self._sign("".join(f"{value}\n" for value in (self.account, *fields.values(), "")))
        return urlencode({name: value for name, value in fields.items() if value} | {"sig": signed})

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """One request signed with the account's key; `path` is `/container/name`, sent as it is."""
        query = query or {}
        kind = "application/octet-stream"
        extra = {
            "x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "x-ms-version": API,
            **(headers or {}),
        }
        encoded = f"/{self.account}{quote(path)}"
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(extra.items()))
        resource = f"/{self.account}{encoded}" + "".join(f"\n{name}:{value}" for name, value in sorted(query.items()))
        to_sign = f"{method}\n\n\n{len(body) or ''}\n\n{kind}\n\n\n\n\n\n\n{canonical}{resource}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{encoded}" + (f"?{urlencode(query)}" if query else ""),
            data=body,
            method=method,
            headers=extra | {"content-type": kind, "authorization": f"SharedKey {self.account}:{self._sign(to_sign)}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return int(answer.status)

    def _sign(self, text: str) -> str:
        return base64.b64encode(hmac.digest(base64.b64decode(self.key), text.encode(), hashlib.sha256)).decode()


@contextmanager
def shared_azurite(folder: Path) -> Iterator[Azurite]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    with shared(folder, Azurite, start_azurite, stop) as server:
        yield server


def start_azurite() -> Azurite:
    """Start a server of one's own on a free port; `stop` ends it."""
    subprocess.run([INSTALL], check=True)
    program = ROOT / ".tools/azurite/node_modules/azurite/dist/src/blob/main.js"
    return started(lambda: _launch(program), _is_ready, stop)


def _launch(program: Path) -> Azurite:
    folder = tempfile.mkdtemp(prefix="azurite-")
    (port,) = free_ports(1)
    arguments = [
        shutil.which("node") or "node",
        str(program),
        "--silent",
        "--disableTelemetry",
        "--skipApiVersionCheck",
        "--inMemoryPersistence",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
    ]
    return Azurite(spawn(arguments, {}, folder), folder, port)


def _is_ready(server: Azurite) -> bool:
    return is_there(lambda: server.create_bucket("ready"))
