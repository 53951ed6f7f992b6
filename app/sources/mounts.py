"""Which file systems a machine shares with others: no kernel tells what another machine did there."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_SHARED = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    }
)
_OCTAL = re.compile(rb"\\([0-7]{3})")


def is_shared(folder: bytes, mounts: Path = MOUNTS) -> bool:
    """Whether other machines may write to `folder`, a real path, without the kernel of this one noticing.

    Args:
        folder: An absolute path without symbolic links.
        mounts: The table of mounts, in the form of `/proc/self/mountinfo`; one that cannot be read says no.
    """
    try:
        text = mounts.read_bytes()
    except OSError:
        return False
    kind = _kind(text, folder)
    return kind in _SHARED or kind.startswith("fuse.")


def _kind(text: bytes, folder: bytes) -> str:
    """The type of the file system that holds `folder`; "" where no line says."""
    best, kind = b"", ""
    for line in text.splitlines():
        front, _, back = line.partition(b" - ")
        fields = front.split(b" ")
        if len(fields) > 4 and back:  # noqa: PLR2004 - the mount point is the fifth field
            point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[4])
            # A later line of the same place lies on top of the earlier one.
            if _holds(point, folder) and len(point) >= len(best):
                best, kind = point, os.fsdecode(back.split(b" ")[0])
    return kind


def _holds(point: bytes, folder: bytes) -> bool:
    return folder == point or folder.startswith(point.rstrip(b"/") + b"/")
