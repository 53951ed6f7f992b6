"""Where data files and manifests are written: a local folder, or an object store through pyiceberg's file I/O.

Sinks travel to the engine's processes, so they hold paths and the storage's own properties, nothing else.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlparse

from app.domain.errors import WriteFailureError
from app.domain.ports import DataSink

if TYPE_CHECKING:
    from pyiceberg.io import FileIO

# Properties of file systems; a catalog's own (its URI, its credential, its token) are not among them.
_STORAGE = ("s3.", "gcs.", "adls.", "hdfs.", "hf.", "client.", "py-io-impl")


def is_local(path: str) -> bool:
    """Whether `path` lies in this machine's file system."""
    return urlparse(path).scheme in ("", "file")


def local_path(path: str) -> Path:
    """The file behind a path or a file: URI, as pyiceberg itself understands it."""
    return Path(urlparse(path).path if path.startswith("file:") else path)


def storage_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """What a file system needs of a table's properties, and no more."""
    return {name: value for name, value in properties.items() if name.startswith(_STORAGE)}


def make_sink(folder: str, properties: Mapping[str, str]) -> DataSink:
    """The sink for a table's data folder.

    Args:
        folder: Path or URI of the folder.
        properties: Those of the table's file I/O.
    """
    folder = folder.rstrip("/")
    return LocalSink(folder) if is_local(folder) else ObjectStoreSink(folder, storage_properties(properties))


@dataclass(frozen=True)
class LocalSink:
    """Data files in a folder of this machine."""

    folder: str

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        """Open a new file; it is on the disk when the context ends, or gone when that ends by an exception."""
        path = f"{self.folder}/{name}"
        return path, _local_file(local_path(path))

    def delete(self, path: str) -> None:
        """Remove a file that was never committed."""
        with _writing(path):
            local_path(path).unlink(missing_ok=True)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file to be read; the stream can seek."""
        return local_path(path).open("rb")


@dataclass(frozen=True)
class ObjectStoreSink:
    """Data files in an object store."""

    folder: str
    # Not shown, for there are keys in it.
    properties: Mapping[str, str] = field(repr=False, default_factory=dict)

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        """Open a new object; one whose context ends by an exception is deleted again."""
        path = f"{self.folder}/{name}"
        return path, self._object(path)

    def delete(self, path: str) -> None:
        """Remove an object that was never committed."""
        with _writing(path), suppress(FileNotFoundError):
            self._io().delete(path)

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object to be read; the stream can seek."""
        return cast("AbstractContextManager[BinaryIO]", self._io().new_input(path).open())

    def _io(self) -> FileIO:
        # The engine's processes that write to a local folder never need it.
        from pyiceberg.io import load_file_io  # noqa: PLC0415

        return load_file_io(dict(self.properties), self.folder)

    @contextmanager
    def _object(self, path: str) -> Iterator[BinaryIO]:
        with _writing(path):
            io = self._io()
            stream = io.new_output(path).create(overwrite=True)
            try:
                yield cast("BinaryIO", stream)
                stream.close()
            except BaseException:
                # An upload cannot be given up, only finished; what it left is removed before anyone names it.
                with suppress(OSError):
                    stream.close()
                with suppress(OSError):
                    io.delete(path)
                raise


@contextmanager
def _local_file(path: Path) -> Iterator[BinaryIO]:
    with _writing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Make the disk keep the names that are in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteFailureError(f"{path} could not be written: {reason}.") from error


def write_whole(path: str, data: bytes, io: FileIO) -> None:
    """Write a small file in one go, replacing what is there; it is never seen half written.

    Raises:
        WriteFailureError: The place takes no files.
    """
    with _writing(path):
        if is_local(path):
            target = local_path(path)
            part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
            with _local_file(part) as file:
                file.write(data)
            try:
                part.replace(target)
            except OSError:
                with suppress(OSError):
                    part.unlink()
                raise
            sync_folder(target.parent)
        else:
            with io.new_output(path).create(overwrite=True) as stream:
                stream.write(data)
