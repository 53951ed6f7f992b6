"""Read objects of exactly the version that was listed, by ranges."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from app.domain.files import SourceFile
from app.domain.locations import object_of_key
from app.sources.access import StoreAccess
from app.sources.object_errors import changed, file_error

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore


def version_of(meta: ObjectMeta) -> str:
    """The version of an object: its etag without quotes, else size and time."""
    etag = (meta["e_tag"] or "").replace('"', "")
    return etag or _dated(meta["size"], meta["last_modified"])


@dataclass
class ObjectReader:
    """Reads objects; thread-safe, and picklable with what opens the store alone."""

    access: StoreAccess
    _stores: dict[str, ObjectStore] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ObjectReader], tuple[StoreAccess]]:
        return ObjectReader, (self.access,)

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end` (excluded; None: to the end of the file).

        Raises:
            FileError: The object is gone or has another version by now, or the store does not give it.
        """
        end = file.size_bytes if end is None else min(end, file.size_bytes)
        bucket, name = object_of_key(file.key)
        options: GetOptions = {"if_match": f'"{file.version}"'} if _is_strong(file) else {}
        if start < end:
            options["range"] = (start, end)
        else:
            options["head"] = True
        try:
            result = obstore.get(self._store(bucket), name, options=options)
            # Not every server heeds the condition.
            if version_of(result.meta) != file.version:
                raise changed(file)
            data = bytes(result.bytes()) if start < end else b""
        except (BaseError, OSError, ValueError) as error:
            raise file_error(error, self.access.dialect, file) from error
        if len(data) != max(end - start, 0):
            raise changed(file)
        return data

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in order, in pieces of `chunk_bytes`; each piece is of the version that was listed.

        Raises:
            FileError: As `read`.
        """
        yield from (
            self.read(file, start, start + chunk_bytes) for start in range(0, max(file.size_bytes, 1), chunk_bytes)
        )

    def _store(self, bucket: str) -> ObjectStore:
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = self.access.open(bucket)
            return self._stores[bucket]


def _is_strong(file: SourceFile) -> bool:
    """Whether the version is an etag that a server compares; a weak one or a date it does not, so we do."""
    return not file.version.startswith("W/") and file.version != _dated(file.size_bytes, file.modified_at)


def _dated(size_bytes: int, modified_at: datetime) -> str:
    return f"{size_bytes}-{int(modified_at.timestamp())}"
