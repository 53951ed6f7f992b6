"""Which file systems other machines write to, by the table of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.sources.mounts import is_shared

TABLE = """\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
35 21 0:45 / /mnt/share rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
36 35 0:46 / /mnt/share/local rw - xfs /dev/sdb rw
37 21 0:47 / /mnt/with\\040space rw - cifs //server/x rw
38 21 0:48 / /srv/s3 rw - fuse.s3fs s3fs rw
39 21 0:49 / /srv/usb rw - fuseblk /dev/sdc rw
40 21 0:50 / /over rw - ext4 /dev/sdd rw
41 40 0:51 / /over rw - nfs server:/y rw
"""


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        (b"/data/landing", False),
        (b"/mnt/share", True),
        (b"/mnt/share/a/b", True),
        (b"/mnt/shared", False),
        (b"/mnt/share/local/x", False),
        (b"/mnt/with space/x", True),
        (b"/srv/s3/bucket", True),
        (b"/srv/usb", False),
        (b"/over/x", True),
    ],
)
def test_the_mount_that_holds_a_folder_decides(tmp_path: Path, folder: bytes, shared: bool) -> None:  # noqa: FBT001
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert is_shared(folder, table) is shared


def test_a_table_that_cannot_be_read_says_no(tmp_path: Path) -> None:
    assert not is_shared(b"/data", tmp_path / "missing")


def test_this_machines_table_can_be_read(tmp_path: Path) -> None:
    assert not is_shared(str(tmp_path).encode())
