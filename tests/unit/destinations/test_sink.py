"""Where data files and manifests go."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from pyiceberg.io import load_file_io

from app.destinations.sink import LocalSink, ObjectStoreSink, local_path, make_sink, storage_properties, write_whole
from app.domain.errors import WriteFailureError
from tests.support.seaweed import Seaweed


class StopHereError(Exception):
    """Something goes wrong while a file is written."""


def test_a_file_appears_with_its_folders(tmp_path: Path) -> None:
    sink = make_sink(f"{tmp_path}/a b#?/data/", {})
    path, stream = sink.create("x/f.parquet")
    with stream as file:
        file.write(b"abc")
    assert path == f"{tmp_path}/a b#?/data/x/f.parquet"
    assert (tmp_path / "a b#?/data/x/f.parquet").read_bytes() == b"abc"


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    path, stream = make_sink(f"file://{tmp_path}/data", {}).create("f")
    with stream as file:
        file.write(b"abc")
    assert path == f"file://{tmp_path}/data/f"
    assert local_path(path).read_bytes() == b"abc"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    _, stream = LocalSink(str(tmp_path)).create("f")
    with pytest.raises(StopHereError), stream as file:  # noqa: PT012
        file.write(b"abc")
        raise StopHereError
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_files_is_a_write_failure(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    _, stream = LocalSink(f"{tmp_path}/data").create("f")
    with pytest.raises(WriteFailureError), stream:
        pytest.fail("the file was opened")


def test_a_full_disk_is_a_write_failure(tmp_path: Path) -> None:
    (tmp_path / "f").symlink_to("/dev/full")
    _, stream = LocalSink(str(tmp_path)).create("f")
    with pytest.raises(WriteFailureError, match="No space left"), stream as file:
        file.write(b"abc")
    assert not (tmp_path / "f").is_symlink()


def test_a_file_is_deleted_once_or_twice(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    sink = LocalSink(str(tmp_path))
    sink.delete(f"{tmp_path}/f")
    sink.delete(f"{tmp_path}/f")
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    path = f"{tmp_path}/m/1.json"
    write_whole(path, b"old", load_file_io({}, path))
    write_whole(path, b"new", load_file_io({}, path))
    assert Path(path).read_bytes() == b"new"
    assert os.listdir(tmp_path / "m") == ["1.json"]  # noqa: PTH208


def test_a_sink_knows_the_storage_and_nothing_of_the_catalog() -> None:
    properties = {"s3.endpoint": "e", "s3.access-key-id": "k", "uri": "u", "credential": "c:s", "token": "t"}
    assert storage_properties(properties) == {"s3.endpoint": "e", "s3.access-key-id": "k"}
    sink = make_sink("s3://b/t/data", {**properties, "s3.secret-access-key": "hidden"})
    assert pickle.loads(pickle.dumps(sink)) == sink  # noqa: S301
    assert "hidden" not in repr(sink)


def test_an_object_appears_and_a_failed_one_does_not(seaweed: Seaweed, bucket: str) -> None:
    sink = make_sink(
        f"s3://{bucket}/data",
        {
            "s3.endpoint": seaweed.endpoint,
            "s3.access-key-id": seaweed.access_key,
            "s3.secret-access-key": seaweed.secret_key,
            "s3.region": seaweed.region,
        },
    )
    assert isinstance(sink, ObjectStoreSink)
    path, stream = pickle.loads(pickle.dumps(sink)).create("whole")  # noqa: S301
    with stream as file:
        file.write(b"abc")
    _, failing = sink.create("broken")
    with pytest.raises(StopHereError), failing as file:  # noqa: PT012
        file.write(b"abc")
        raise StopHereError
    names = {o["path"] for page in seaweed.store(bucket).list() for o in page}
    assert "data/whole" in names
    assert "data/broken" not in names
    sink.delete(path)
    sink.delete(path)
    assert "data/whole" not in {o["path"] for page in seaweed.store(bucket).list() for o in page}


def test_a_bucket_that_is_not_there_is_a_write_failure(seaweed: Seaweed) -> None:
    properties = {
        "s3.endpoint": seaweed.endpoint,
        "s3.access-key-id": "nobody",
        "s3.secret-access-key": "knows",
        "s3.region": seaweed.region,
    }
    _, stream = make_sink("s3://no-such-bucket/data", properties).create("f")
    with pytest.raises(WriteFailureError, match="s3://no-such-bucket/data/f"), stream as file:
        file.write(b"abc")
