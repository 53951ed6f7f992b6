"""S3: what the store says becomes an error of ours without a secret; listings stream; a key is used as a whole."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest

from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    Category,
    FileError,
    InvalidFieldError,
    NotSupportedError,
    SourceAuthError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from app.domain.files import SourceFile
from app.domain.locations import Location
from app.domain.ports import Source
from app.sources import open_source
from app.sources.aws import AwsKey, AwsSettings
from app.sources.object_store import ObjectStoreSource
from app.sources.s3 import S3Access
from tests.support.answers import Answer, Request, answering, s3_error, s3_listing
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports

FILE = SourceFile("s3://b/a", "abc", 3, datetime(2026, 1, 1, tzinfo=UTC))


def _open(path: str, environ: Mapping[str, str], pattern: str | None = None) -> Source:
    return open_source(path, file_pattern=pattern, credentials=None, environ=environ)


def _keys(source: Source) -> list[str]:
    return [file.key for file in source.discover()]


# --- what a real server says -------------------------------------------------------------------------------------


def test_a_bucket_that_is_not_there(seaweed: Seaweed) -> None:
    for path in ("s3://no-such-bucket", "s3://no-such-bucket/a.json", "s3://no-such-bucket/*.json"):
        with pytest.raises(BucketNotFoundError, match="no-such-bucket"):
            _keys(_open(path, seaweed.environ))


@pytest.mark.parametrize("wrong", [{"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, {"AWS_ACCESS_KEY_ID": "nobody"}])
def test_a_wrong_key(seaweed: Seaweed, bucket: str, wrong: dict[str, str]) -> None:
    seaweed.put(bucket, {"a": b"1"})
    (file,) = _open(f"s3://{bucket}", seaweed.environ).discover()
    source = _open(f"s3://{bucket}", seaweed.environ | wrong)
    with pytest.raises(SourceAuthError) as refused:
        _keys(source)
    assert "secret" not in str(refused.value)
    with pytest.raises(FileError) as failed:
        source.reader().read(file)
    assert failed.value.category is Category.AUTH
    assert "secret" not in str(failed.value)


def test_a_file_of_a_bucket_that_went_away(seaweed: Seaweed) -> None:
    file = SourceFile("s3://went-away/a", "abc", 3, FILE.modified_at)
    with pytest.raises(FileError) as failed:
        _open("s3://went-away", seaweed.environ).reader().read(file)
    assert failed.value.category is Category.PATH_NOT_FOUND


def test_the_version_is_the_etag(seaweed: Seaweed, bucket: str) -> None:
    seaweed.put(bucket, {"a": b"hello"})
    (file,) = _open(f"s3://{bucket}", seaweed.environ).discover()
    assert file.version == "5d41402abc4b2a76b9719d911017c592"


def test_keys_below_a_name_make_it_a_folder(seaweed: Seaweed, bucket: str) -> None:
    seaweed.put(bucket, {"x/": b"", "x/a": b"1", "xy": b"1"})
    assert _keys(_open(f"s3://{bucket}/x", seaweed.environ)) == [f"s3://{bucket}/x/a"]


def test_a_pattern_in_the_path(seaweed: Seaweed, bucket: str) -> None:
    seaweed.put(bucket, dict.fromkeys(["e/1/a.json", "e/2/a.json", "e/2/b.csv", "f/a.json"], b"1"))
    source = _open(f"s3://{bucket}/e/*/*.json", seaweed.environ)
    assert _keys(source) == [f"s3://{bucket}/e/1/a.json", f"s3://{bucket}/e/2/a.json"]
    assert source.root == f"s3://{bucket}/e"
    with pytest.raises(InvalidFieldError, match="file_pattern"):
        _open(f"s3://{bucket}/e/*/*.json", seaweed.environ, "*.csv")
    with pytest.raises(SourceNotFoundError):
        _keys(_open(f"s3://{bucket}/nowhere/*.json", seaweed.environ))


def test_one_reader_serves_many_threads(seaweed: Seaweed, bucket: str) -> None:
    seaweed.put(bucket, {f"{n}": str(n).encode() * 1_000 for n in range(20)})
    source = _open(f"s3://{bucket}", seaweed.environ)
    reader, files = source.reader(), list(source.discover())
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(reader.read, files * 3))
    assert contents == [file.key.rpartition("/")[2].encode() * 1_000 for file in files * 3]


# --- what a server could say -------------------------------------------------------------------------------------


def test_a_listing_is_read_page_by_page() -> None:
    def answer(request: Request) -> Answer:
        if "start-after" in request.path:
            return s3_listing()
        page = int(request.path.partition("continuation-token=")[2].partition("&")[0] or "0")
        keys = (f"{page}-{number:04}" for number in range(1_000))
        return s3_listing(*keys, next_token=str(page + 1) if page < 9 else "")

    with answering(answer) as server:
        files = _open("s3://b/", server.environ).discover()
        assert next(files).key == "s3://b/0-0000"
        assert len(server.requests) <= 3
        assert sum(1 for _ in files) == 9_999
        # The last one asks whether anything comes after the end.
        assert len(server.requests) == 11


def test_a_listing_starts_at_the_longest_folder_that_the_pattern_fixes() -> None:
    with answering(lambda _: s3_listing("e/2024/a/x.json")) as server:
        assert _keys(_open("s3://b/e/", server.environ, "2024/*/x.json")) == ["s3://b/e/2024/a/x.json"]
        assert server.requests[0].path == "/b?list-type=2&prefix=e%2F2024%2F"
        assert "start-after=e%2F2024%2Fa%2Fx.json" in server.requests[1].path
        assert len(server.requests) == 2


def test_a_listing_that_lost_its_end_is_gone_on_with() -> None:
    """The second page comes as something that is read as the end: an error, or a page without keys."""
    lost = [Answer(200, b"<Error><Code>InternalError</Code></Error>"), s3_listing()]

    def answer(request: Request) -> Answer:
        if "start-after" in request.path:
            return s3_listing("c", "d") if "start-after=b" in request.path else s3_listing()
        return lost.pop(0) if "continuation-token" in request.path else s3_listing("a", "b", next_token="1")

    while lost:
        with answering(answer) as server:
            assert _keys(_open("s3://x/", server.environ)) == [f"s3://x/{key}" for key in "abcd"]


def test_a_folder_that_seems_empty_is_looked_at_again() -> None:
    def answer(request: Request) -> Answer:
        if len(server.requests) == 1:
            return Answer(200, b"<Error><Code>InternalError</Code></Error>")
        return s3_listing() if "start-after" in request.path else s3_listing("f/a")

    with answering(answer) as server:
        assert _keys(_open("s3://x/f/", server.environ)) == ["s3://x/f/a"]


def test_a_server_that_does_not_list_in_order_is_asked_once() -> None:
    with answering(lambda _: s3_listing("b", "a")) as server:
        assert _keys(_open("s3://x/", server.environ)) == ["s3://x/b", "s3://x/a"]
        assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["a//b", "a/../b", "a/./b", "a\tb"])
def test_a_key_that_cannot_be_held_is_named(key: str) -> None:
    with answering(lambda _: s3_listing("a", key)) as server, pytest.raises(NotSupportedError) as refused:
        _keys(_open("s3://b/", server.environ))
    assert repr(key) in str(refused.value)


def test_a_backslash_in_a_key_is_doubled() -> None:
    with answering(lambda r: s3_listing("a\\b") if "list-type" in r.path else Answer(body=b"123")) as server:
        source = _open("s3://b/", server.environ)
        (file,) = source.discover()
        assert file.key == "s3://b/a\\\\b"
        with pytest.raises(FileError):
            source.reader().read(file)
        assert server.requests[-1].path == "/b/a%5Cb"


def test_a_folder_marker_alone_is_an_empty_folder() -> None:
    def answer(request: Request) -> Answer:
        return s3_listing("dir/") if "prefix=dir%2F" in request.path else s3_error(404, "NoSuchKey")

    with answering(answer) as server:
        assert _keys(_open("s3://b/dir/", server.environ)) == []


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (s3_error(403, "AccessDenied"), SourceAuthError, "AccessDenied"),
        (s3_error(400, "ExpiredToken"), SourceAuthError, "ExpiredToken"),
        (s3_error(401, "Odd"), SourceAuthError, "Odd"),
        (s3_error(404, "NoSuchBucket"), BucketNotFoundError, "no bucket 'b'"),
        (s3_error(400, "AuthorizationHeaderMalformed"), InvalidFieldError, "region"),
        (Answer(301), InvalidFieldError, "region"),
        (s3_error(400, "Odd", "very-secret"), SourceUnreachableError, "400 Odd"),
        (Answer(200, b"<html>welcome very-secret</html>"), SourceUnreachableError, "no S3 service"),
        (Answer(200, b"very-secret"), SourceUnreachableError, "'b'"),
    ],
)
def test_what_a_store_says_has_a_kind(answer: Answer, error: type[AutoloaderError], says: str) -> None:
    with answering(lambda _: answer) as server, pytest.raises(error) as raised:
        _keys(_open("s3://b/", server.environ))
    assert says in str(raised.value)
    assert "very-secret" not in str(raised.value)


def test_a_server_in_trouble_is_asked_again() -> None:
    def answer(_: Request) -> Answer:
        return s3_error(503, "SlowDown") if len(server.requests) < 3 else s3_listing("a")

    with answering(answer) as server:
        assert _keys(_open("s3://b/", server.environ)) == ["s3://b/a"]


def test_a_server_that_stays_in_trouble_is_unreachable() -> None:
    with answering(lambda _: s3_error(503, "SlowDown")) as server:
        source = _open("s3://b/", server.environ)
        with pytest.raises(SourceUnreachableError, match="503 SlowDown"):
            _keys(source)
        assert 2 < len(server.requests) < 10
        with pytest.raises(FileError) as failed:
            source.reader().read(FILE)
    assert failed.value.category is Category.CONNECTIVITY


def _impatient(port: int) -> ObjectStoreSource:
    settings = AwsSettings(AwsKey("a", "b"), endpoint_url=f"http://127.0.0.1:{port}", patience_s=1)
    return ObjectStoreSource(Location("s3", "b", ""), S3Access(settings))


def test_patience_is_ten_seconds_unless_said() -> None:
    assert AwsSettings().patience_s == 10


def test_an_endpoint_where_nobody_listens() -> None:
    (port,) = free_ports(1)
    source = _impatient(port)
    with pytest.raises(SourceUnreachableError, match=r"refused|timed out"):
        _keys(source)
    with pytest.raises(FileError, match=r"refused|timed out") as failed:
        source.reader().read(FILE)
    assert failed.value.category is Category.CONNECTIVITY


@pytest.mark.timeout(300)
def test_an_endpoint_that_takes_the_connection_and_stays_silent() -> None:
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        source = _impatient(listener.getsockname()[1])
        with pytest.raises(SourceUnreachableError):
            _keys(source)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in held:
        connection.close()
    # It gave up after one wait for an answer, not after one a retry.
    assert len(held) <= 2


def test_every_range_names_the_version() -> None:
    def answer(_: Request) -> Answer:
        return Answer(206, b"23", {"etag": '"abc"', "content-range": "bytes 1-2/3"})

    with answering(answer) as server:
        assert _open("s3://b/", server.environ).reader().read(FILE, 1, 3) == b"23"
        asked = server.requests[0].headers
        assert asked["if-match"] == '"abc"'
        assert asked["range"] == "bytes=1-2"


def test_a_server_that_heeds_no_condition_is_found_out() -> None:
    with answering(lambda _: Answer(206, b"123", {"etag": '"new"', "content-range": "bytes 0-2/3"})) as server:
        with pytest.raises(FileError) as refused:
            _open("s3://b/", server.environ).reader().read(FILE)
        assert refused.value.category is Category.PATH_NOT_FOUND


@pytest.mark.parametrize("etag", ["", 'W/"abc"'])
def test_a_store_without_etags_or_with_weak_ones(etag: str) -> None:
    headers = {"content-range": "bytes 0-2/3"} | ({"etag": etag} if etag else {})

    def answer(request: Request) -> Answer:
        listing = s3_listing("a", etag="").body
        if etag:
            listing = listing.replace(b"<Size>", b"<ETag>W/&quot;abc&quot;</ETag><Size>")
        return Answer(body=listing) if "list-type" in request.path else Answer(206, b"123", headers)

    with answering(answer) as server:
        source = _open("s3://b/", server.environ)
        (file,) = source.discover()
        assert file.version == ("W/abc" if etag else "3-1767225600")
        assert source.reader().read(file) == b"123"
        assert "if-match" not in server.requests[-1].headers


def test_a_session_token_goes_with_its_own_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # The library looks at the process's environment by itself.
    monkeypatch.setenv("AWS_SESSION_TOKEN", "foreign")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with answering(lambda _: s3_listing("a")) as server:
        given = {"aws_access_key_id": "mine", "aws_secret_access_key": "x", "endpoint_url": server.endpoint}
        environ = {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "y", "AWS_SESSION_TOKEN": "foreign"}
        _keys(open_source("s3://b/", file_pattern=None, credentials=given, environ=environ))
        _keys(open_source("s3://b/", file_pattern=None, credentials=given | {"aws_session_token": "t"}, environ={}))
        first, *_, second = server.requests
    assert "Credential=mine/" in first.headers["authorization"]
    assert "/us-east-1/s3/" in first.headers["authorization"]
    assert "x-amz-security-token" not in first.headers
    assert second.headers["x-amz-security-token"] == "t"


def test_a_machine_without_a_key_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: Answer(404)) as metadata, answering(lambda _: s3_listing("a")) as server:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", metadata.endpoint)
        environ = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_METADATA_ENDPOINT": metadata.endpoint}
        with pytest.raises(SourceAuthError, match="No key") as refused:
            _keys(_open("s3://b/", environ))
        assert "AWS_ACCESS_KEY_ID" in str(refused.value)
        assert server.requests == []


def test_a_reader_shows_no_secret_and_carries_no_store() -> None:
    with answering(lambda _: Answer(206, b"123", {"etag": '"abc"', "content-range": "bytes 0-2/3"})) as server:
        source = _open("s3://b/", server.environ | {"AWS_SESSION_TOKEN": "also-secret"})
        reader = source.reader()
        assert reader.read(FILE) == b"123"
        assert "secret" not in f"{reader!r} {reader} {vars(reader)}"
        assert pickle.loads(pickle.dumps(reader)).read(FILE) == b"123"  # noqa: S301


def test_a_name_that_the_store_cannot_have_is_refused() -> None:
    with answering(lambda _: s3_listing()) as server, pytest.raises(NotSupportedError):
        _keys(_open("s3://b/a//b", server.environ))
