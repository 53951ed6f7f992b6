"""Listings of real stores, put in order: by the bytes of the key, and complete."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from app.domain.discovery import in_key_order
from app.domain.locations import file_key
from app.sources import open_source
from app.sources.sorting import DiskSorter
from tests.support.seaweed import Seaweed

NAMES = ["a/x", "a-b/x", "a.json", "a!", "é", "\uffee", "\U0001f600", "a/b/c", "a/b-c", "a0", "Z"]


def test_a_local_walk_rises_by_itself(tmp_path: Path) -> None:
    names = [name.encode() for name in NAMES] + [b"\xff", b"a/\xe9", b"\\", b"a\\xff", b"]"]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        Path(os.fsdecode(path)).write_bytes(b"1")
    source = open_source(str(tmp_path), file_pattern=None, credentials=None, environ={})
    told: list[str] = []
    keys = [file.key for file in in_key_order(source.discover(), DiskSorter(), told.append)]
    assert told == []
    root = os.fsencode(tmp_path) + b"/"
    assert keys == sorted((file_key(root + name) for name in names), key=str.encode)
    assert f"file://{tmp_path}/\\xff" in keys


def test_a_listing_in_another_order_is_sorted(seaweed: Seaweed, bucket: str, tmp_path: Path) -> None:
    seaweed.put(bucket, dict.fromkeys(NAMES, b"1"))
    source = open_source(f"s3://{bucket}/", file_pattern=None, credentials=None, environ=seaweed.environ)
    listed = [file.key for file in source.discover()]
    in_order = sorted((f"s3://{bucket}/{name}" for name in NAMES), key=str.encode)
    # Were this server to list in order, the test would show nothing.
    assert listed != in_order
    told: list[str] = []
    sorter = DiskSorter(folder=tmp_path, run_files=3)
    keys = [file.key for file in in_key_order(source.discover(), sorter, told.append)]
    assert len(told) == 1
    assert sorted(keys, key=str.encode) == in_order
    # One rising sequence up to the first key that did not rise, one after it.
    falls = [later for sooner, later in pairwise(keys) if later.encode() < sooner.encode()]
    assert len(falls) == 1
    behind = keys[keys.index(falls[0]) :]
    assert told[0] in behind
    assert behind == sorted(behind, key=str.encode)
    assert list(tmp_path.iterdir()) == []
