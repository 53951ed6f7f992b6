"""Where files land: whole, at once, while loads are at work; and the history of what landed."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from tests.crash.kill.versions import Version
from tests.support.seaweed import Seaweed
from tests.support.stamps import put_anew, stamp_of

PREFIX = "landing"


class Store(Protocol):
    """Takes files."""

    @property
    def source(self) -> str:
        """What a load is given."""
        ...

    def key(self, name: str) -> str:
        """The name under which ledger and table know the file."""
        ...

    def put(self, name: str, data: bytes) -> str:
        """Land a file, or a new version of it, in one step; what a listing takes for its version is given back."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder on disk."""

    path: Path

    @property
    def source(self) -> str:
        return str(self.path)

    def key(self, name: str) -> str:
        return f"file://{self.path.resolve()}/{name}"

    def put(self, name: str, data: bytes) -> str:
        # Beside the folder: a listing never sees it.
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_bytes(data)
        stamp = stamp_of(unfinished)
        unfinished.rename(self.path / name)
        return stamp


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket."""

    seaweed: Seaweed
    name: str

    @property
    def source(self) -> str:
        return f"s3://{self.name}/{PREFIX}/"

    def key(self, name: str) -> str:
        return f"{self.source}{name}"

    def put(self, name: str, data: bytes) -> str:
        done = self.seaweed.store(self.name).put(f"{PREFIX}/{name}", data)
        return (done["e_tag"] or "").replace('"', "")


@dataclass(frozen=True)
class Landed:
    """A version that landed."""

    version: Version
    # What a listing takes for its version.
    stamp: str


@dataclass
class Landing:
    """A place, and all that ever landed there."""

    store: Store
    # Where the history is written down.
    log: Path
    history: dict[str, list[Landed]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def land(self, version: Version) -> None:
        """Put a version there, the newest of its file."""
        with self._lock:
            before = self.history.setdefault(version.name, [])
            stamp = put_anew(
                lambda: self.store.put(version.name, version.content()), [landed.stamp for landed in before]
            )
            before.append(Landed(version, stamp))
            with self.log.open("a") as log:
                log.write(json.dumps({"at": time.time(), "stamp": stamp, **asdict(version)}) + "\n")

    def by_key(self) -> dict[str, list[Landed]]:
        """The history by the names that ledger and table know, oldest version first."""
        return {self.store.key(name): landed for name, landed in self.history.items()}
