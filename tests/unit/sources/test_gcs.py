"""Google Cloud Storage: what the service says becomes an error of ours without a secret; one key is used alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    Category,
    FileError,
    SourceAuthError,
    SourceUnreachableError,
)
from app.domain.files import SourceFile
from app.domain.locations import Location
from app.domain.ports import Source
from app.sources import open_source
from app.sources.gcs import GoogleAccess
from app.sources.google import GoogleSettings
from app.sources.object_store import ObjectStoreSource
from tests.support.answers import Answer, Answers, answering, s3_error, s3_listing, token
from tests.support.fake_gcs import FakeGcs
from tests.support.servers import free_ports

FILE = SourceFile("gs://b/a", "abc", 3, datetime(2026, 1, 1, tzinfo=UTC))
UNSIGNED = json.dumps({"disable_oauth": True, "client_email": "", "private_key": "secret", "private_key_id": ""})
RANGE = {"etag": '"abc"', "content-range": "bytes 0-2/3"}
METADATA = ("GCE_METADATA_HOST", "GCE_METADATA_IP")


def _open(path: str, credentials: Mapping[str, str] | None, environ: Mapping[str, str] | None = None) -> Source:
    return open_source(path, file_pattern=None, credentials=credentials, environ=environ or {})


def _keys(source: Source) -> list[str]:
    return [file.key for file in source.discover()]


def _to(server: Answers) -> dict[str, str]:
    return {"service_account_key": UNSIGNED, "endpoint_url": server.endpoint}


def _machine(monkeypatch: pytest.MonkeyPatch, machine: Answers) -> None:
    # The library asks the process's environment alone.
    for name in METADATA:
        monkeypatch.setenv(name, machine.endpoint.removeprefix("http://"))


# --- what a real server says -------------------------------------------------------------------------------------


def test_the_version_is_the_etag(fake_gcs: FakeGcs) -> None:
    fake_gcs.put(fake_gcs.create_bucket("unit-gcs"), {"etag/a": b"hello"})
    (file,) = _open("gs://unit-gcs/etag", fake_gcs.credentials).discover()
    assert file == SourceFile("gs://unit-gcs/etag/a", "XUFAKrxLKna5cZ2REBfFkg==", 5, file.modified_at)


def test_an_emulator_that_the_environment_names(fake_gcs: FakeGcs) -> None:
    fake_gcs.put(fake_gcs.create_bucket("unit-gcs-env"), {"a": b"123"})
    source = _open("gcs://unit-gcs-env", None, fake_gcs.environ)
    (file,) = source.discover()
    assert source.reader().read(file, 1) == b"23"


# --- what a server could say -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (s3_error(403, "AccessDenied", "very-secret"), SourceAuthError, "AccessDenied"),
        (s3_error(401, "AuthenticationRequired"), SourceAuthError, "AuthenticationRequired"),
        (s3_error(400, "UserProjectMissing"), SourceAuthError, "UserProjectMissing"),
        (s3_error(404, "NoSuchBucket"), BucketNotFoundError, "no bucket 'b'"),
        (s3_error(400, "Odd", "very-secret"), SourceUnreachableError, "400 Odd"),
        (Answer(200, b"<html>very-secret</html>", {"etag": "x"}), SourceUnreachableError, "no Google Cloud Storage"),
        (Answer(200, b"very-secret"), SourceUnreachableError, "'b'"),
    ],
)
def test_what_a_store_says_has_a_kind(answer: Answer, error: type[AutoloaderError], says: str) -> None:
    with answering(lambda _: answer) as server, pytest.raises(error) as raised:
        _keys(_open("gs://b/", _to(server)))
    assert says in str(raised.value)
    assert "very-secret" not in str(raised.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_file_that_the_key_may_not_read(status: int) -> None:
    with answering(lambda _: s3_error(status, "AccessDenied")) as server:
        with pytest.raises(FileError) as failed:
            _open("gs://b/", _to(server)).reader().read(FILE)
        assert failed.value.category is Category.AUTH


def test_every_range_names_the_version() -> None:
    with answering(lambda _: Answer(206, b"23", {"etag": '"abc"', "content-range": "bytes 1-2/3"})) as server:
        assert _open("gs://b/", _to(server)).reader().read(FILE, 1, 3) == b"23"
        asked = server.requests[0].headers
    assert (asked["if-match"], asked["range"]) == ('"abc"', "bytes=1-2")


def test_a_server_that_heeds_no_condition_is_found_out() -> None:
    with answering(lambda _: Answer(206, b"123", RANGE | {"etag": '"new"'})) as server:
        with pytest.raises(FileError) as refused:
            _open("gs://b/", _to(server)).reader().read(FILE)
        assert refused.value.category is Category.PATH_NOT_FOUND


def test_an_endpoint_where_nobody_listens() -> None:
    (port,) = free_ports(1)
    settings = GoogleSettings(service_account_key=UNSIGNED, endpoint_url=f"http://127.0.0.1:{port}", patience_s=1)
    source = ObjectStoreSource(Location("gs", "b", ""), GoogleAccess(settings))
    with pytest.raises(SourceUnreachableError, match=r"refused|timed out"):
        _keys(source)
    with pytest.raises(FileError, match=r"refused|timed out") as failed:
        source.reader().read(FILE)
    assert failed.value.category is Category.CONNECTIVITY


def test_a_given_key_is_used_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The library looks at the process's environment by itself.
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"type": "authorized_user", "client_id": "f", "client_secret": "f", "refresh_token": "f"}')
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(foreign))
    monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_BUCKET", "foreign")
    with answering(lambda _: s3_listing("a")) as server:
        assert _keys(_open("gs://b/", _to(server))) == ["gs://b/a"]
        assert server.requests[0].path == "/b?list-type=2"
        # It would be asked for where an emulator's key did not say that nothing is signed.
        assert server.requests[0].headers.get("authorization", "Bearer ") == "Bearer "


def test_a_key_that_signs_nothing_says_so() -> None:
    broken = json.dumps({"client_email": "x", "private_key": "-PRIVATE KEY secret", "private_key_id": "1"})
    with answering(lambda _: s3_listing("a")) as server:
        source = _open("gs://b/", {"service_account_key": broken, "endpoint_url": server.endpoint})
        with pytest.raises(SourceAuthError, match="No key for the bucket") as refused:
            _keys(source)
        assert "secret" not in f"{refused.value} {refused.value.__cause__}"
        assert server.requests == []


# --- without a key -----------------------------------------------------------------------------------------------


def test_the_machine_s_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: token("machine")) as machine, answering(lambda _: s3_listing("a")) as server:
        _machine(monkeypatch, machine)
        assert _keys(_open("gs://b/", {"endpoint_url": server.endpoint})) == ["gs://b/a"]
        assert server.requests[0].headers["authorization"] == "Bearer machine"
        assert machine.requests[0].path.startswith("/computeMetadata/v1/instance/service-accounts/default/token")


def test_a_machine_without_an_identity_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: Answer(404)) as machine, answering(lambda _: s3_listing("a")) as server:
        _machine(monkeypatch, machine)
        with pytest.raises(SourceAuthError, match="No key for the bucket") as refused:
            _keys(_open("gs://b/", {"endpoint_url": server.endpoint}))
        assert "GOOGLE_APPLICATION_CREDENTIALS" in str(refused.value)
        assert server.requests == []


def test_a_public_bucket_is_asked_without_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda _: token("machine")) as machine, answering(lambda _: Answer(206, b"123", RANGE)) as server:
        _machine(monkeypatch, machine)
        source = _open("gs://b/", {"endpoint_url": server.endpoint}, {"GOOGLE_SKIP_SIGNATURE": "true"})
        assert source.reader().read(FILE) == b"123"
        assert machine.requests == []
        assert "authorization" not in server.requests[0].headers


def test_a_reader_shows_no_secret_and_travels() -> None:
    with answering(lambda _: Answer(206, b"123", RANGE)) as server:
        reader = _open("gs://b/", _to(server)).reader()
        assert reader.read(FILE) == b"123"
        assert "secret" not in f"{reader!r} {reader} {vars(reader)}"
        assert pickle.loads(pickle.dumps(reader)).read(FILE) == b"123"  # noqa: S301
