"""File I/O for tables on this machine's disk: what a commit is going to name is on the disk before it is named.

pyiceberg writes manifests and metadata without asking the system to keep them, and then commits by a database that
does ask. A machine that loses its power right after would have a catalog that names empty files.

Local files are read and written by Python itself. Arrow, by which pyiceberg does it, takes longer to import than a
load with nothing new needs for all its work; it is asked for files that lie elsewhere.
"""

from __future__ import annotations

import io
import os
from functools import cached_property
from pathlib import Path
from typing import cast

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from app.destinations.sink import is_local, local_path, sync_folder


class SyncedFileIO(FileIO):
    """Local files are on the disk when they are closed; others are pyiceberg's own business."""

    def new_input(self, location: str) -> InputFile:
        """A file to be read."""
        return LocalFile(location) if is_local(location) else self._elsewhere.new_input(location)

    def new_output(self, location: str) -> OutputFile:
        """A file that is on the disk when its stream is closed."""
        return LocalFile(location) if is_local(location) else self._elsewhere.new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove a file.

        Raises:
            FileNotFoundError: There is none.
        """
        place = location if isinstance(location, str) else location.location
        if is_local(place):
            local_path(place).unlink()
        else:
            self._elsewhere.delete(place)

    @cached_property
    def _elsewhere(self) -> FileIO:
        from pyiceberg.io.pyarrow import PyArrowFileIO  # noqa: PLC0415  # only where a file lies in an object store

        return PyArrowFileIO(self.properties)


class LocalFile(InputFile, OutputFile):
    """A file of this machine."""

    def __len__(self) -> int:
        """Its size in bytes."""
        return self._path.stat().st_size

    def exists(self) -> bool:
        """Whether it is there."""
        return self._path.exists()

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002, FBT001, FBT002 - as the library has it
        """A stream of what it holds; it can seek.

        Raises:
            FileNotFoundError, PermissionError: As they say.
        """
        return cast("InputStream", self._path.open("rb"))

    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: FBT001, FBT002 - as the library has it
        """A stream into it, and the folders above it.

        Raises:
            FileExistsError: It is there, and is not to be overwritten.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return cast("OutputStream", _Synced(io.FileIO(self._path, "w" if overwrite else "x")))

    def to_input_file(self) -> LocalFile:
        """The same, to be read."""
        return self

    @property
    def _path(self) -> Path:
        return local_path(self.location)


class _Synced(io.BufferedWriter):
    """A file that is synced, and named in its folder for good, when it is closed."""

    def close(self) -> None:
        if self.closed:
            return
        path = Path(cast("str", self.name))
        try:
            self.flush()
            os.fsync(self.fileno())
        finally:
            super().close()
        sync_folder(path.parent)
