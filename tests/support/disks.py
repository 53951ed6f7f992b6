"""Disks that a test may fill or forbid to write: mounts that only one command and its children see."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

# As root by a right of root's; else in a user namespace of one's own, where every user is root.
WAYS = (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount"))


@functools.cache
def _way() -> tuple[str, ...]:
    said = []
    for way in WAYS:
        tried = subprocess.run(
            [*way, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
        )
        if tried.returncode == 0:
            return way
        said.append(f"{' '.join(way)}: {tried.stderr.strip()}")
    pytest.fail(
        "No file system can be mounted here, which the tests of full and read-only disks need: run them as root, or "
        "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
        "kernel.apparmor_restrict_unprivileged_userns=0).\n" + "\n".join(said)
    )


def on_small_disk(folder: Path, kilobytes: int, files: int = 1000) -> list[str]:
    """What to put before a command so that it, and nobody else, sees an empty disk at `folder`.

    Args:
        folder: Where; made if need be.
        kilobytes: How much goes onto it.
        files: How many files and folders go onto it.
    """
    return _mounted(f'mount -t tmpfs -o size={kilobytes}k,nr_inodes={files} none "$0"', folder)


def read_only(folder: Path) -> list[str]:
    """What to put before a command so that it cannot write below `folder`, not even as root."""
    return _mounted('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"', folder)


def _mounted(mount: str, folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return [*_way(), "sh", "-c", f'{mount} && exec "$@"', str(folder)]


class Balloon:
    """Fills a disk up to the last few pages, or up to the last few files that it can hold."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._folder = disk / "balloon"

    def leave_pages(self, count: int) -> None:
        """Let so many pages be free."""
        self.burst()
        self._folder.mkdir()
        with (self._folder / "fill").open("wb") as file:
            status = os.statvfs(self._disk)
            os.posix_fallocate(file.fileno(), 0, (status.f_bavail - count) * status.f_bsize)
        assert os.statvfs(self._disk).f_bavail == count

    def leave_files(self, count: int) -> None:
        """Let so many files be made."""
        self.burst()
        self._folder.mkdir()
        for number in range(os.statvfs(self._disk).f_favail - count):
            (self._folder / str(number)).touch()
        assert os.statvfs(self._disk).f_favail == count

    def burst(self) -> None:
        """Free everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
