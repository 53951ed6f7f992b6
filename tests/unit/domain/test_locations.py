"""What a user writes becomes a place, and a path becomes a key and comes back."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import AutoloaderError, InvalidFieldError, NotSupportedError
from app.domain.locations import (
    Location,
    StoreScheme,
    can_find_below,
    contains,
    file_key,
    object_key,
    object_of_key,
    parse_location,
    path_of_key,
    source_type,
)
from app.domain.patterns import Pattern


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("./landing/", Location("file", "", "/home/u/landing/")),
        ("landing", Location("file", "", "/home/u/landing")),
        (".", Location("file", "", "/home/u")),
        ("../x", Location("file", "", "/home/x")),
        ("/", Location("file", "", "/")),
        ("/abs//a/./b", Location("file", "", "/abs/a/b")),
        ("data/*.csv", Location("file", "", "/home/u/data/", "*.csv")),
        ("*.csv", Location("file", "", "/home/u", "*.csv")),
        ("/abs/x*/y.csv", Location("file", "", "/abs/", "x*/y.csv")),
        ("file:///a b/%20", Location("file", "", "/a b/%20")),
        ("FILE:///a", Location("file", "", "/a")),
        ("file:///a\\\\b", Location("file", "", "/a\\b")),
        ("file:///a\\xff", Location("file", "", os.fsdecode(b"/a\xff"))),
        ("s3://b", Location("s3", "b", "")),
        ("s3://b/", Location("s3", "b", "")),
        ("s3://b/a/", Location("s3", "b", "a/")),
        ("s3://b/a b%20#.json", Location("s3", "b", "a b%20#.json")),
        ("s3://b/a\\b.json", Location("s3", "b", "a\\b.json")),
        ("s3://b/ev/**/*.json.gz", Location("s3", "b", "ev/", "**/*.json.gz")),
        ("s3://b/{a,b/c}/x", Location("s3", "b", "", "{a,b/c}/x")),
    ],
)
def test_parse(text: str, location: Location) -> None:
    assert parse_location(text, cwd="/home/u") == location


def test_the_folder_of_the_process_is_no_pattern() -> None:
    assert parse_location("x", cwd="/home/[u]*") == Location("file", "", "/home/[u]*/x")
    assert parse_location("*.csv", cwd="/home/[u]*") == Location("file", "", "/home/[u]*", "*.csv")


@pytest.mark.parametrize(
    ("text", "literal"), [("data/*.csv", "/home/u/data/*.csv"), ("/x[1].csv", "/x[1].csv"), ("s3://b/e[1]/f", "e[1]/f")]
)
def test_the_literal_name_is_what_was_written(text: str, literal: str) -> None:
    assert parse_location(text, cwd="/home/u").literal == literal


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("az://con/x/*.json", Location("az", "con", "x/", "*.json")),
        ("AZ://con", Location("az", "con", "")),
        ("abfs://con/x/", Location("az", "con", "x/")),
        ("abfss://con@acc1.dfs.core.windows.net/x/y", Location("az", "con", "x/y", account="acc1")),
        ("abfss://con@acc1.BLOB.core.windows.net", Location("az", "con", "", account="acc1")),
        ("gs://b/x/y", Location("gs", "b", "x/y")),
        ("gcs://b/{a,b}", Location("gs", "b", "", "{a,b}")),
    ],
)
def test_places_in_azure_and_google_stores(text: str, location: Location) -> None:
    assert parse_location(text, cwd="/") == location


@pytest.mark.parametrize(
    "host", ["acc1.dfs.core.chinacloudapi.cn", "dfs.core.windows.net", "a.b.dfs.core.windows.net", ""]
)
def test_a_host_of_another_cloud_is_refused(host: str) -> None:
    with pytest.raises(NotSupportedError, match=r"dfs\.core\.windows\.net"):
        parse_location(f"abfss://con@{host}/x", cwd="/")


@pytest.mark.parametrize("text", ["SFTP://h/x", "https://acc.blob.core.windows.net/c/x?sig=hidden", "http://h/x"])
def test_an_address_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(NotSupportedError, match=text.partition(":")[0].lower()) as refused:
        parse_location(text, cwd="/")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "s3://hidden@b/x",
        "s3://b:hidden/x",
        "gs://hidden@b/x",
        "az://hidden@acc1.dfs.core.windows.net/x",
        "abfss://con:hidden@acc1.dfs.core.windows.net/x",
        "abfss://con@hidden@acc1.dfs.core.windows.net/x",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AutoloaderError) as refused:
        parse_location(text, cwd="/")
    assert refused.value.code in {"invalid_field", "not_supported"}
    assert "hidden" not in f"{refused.value}"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("s3://b", "s3"),
        ("S3://b", "s3"),
        ("az://c/x", "azure_blob"),
        ("abfss://c@acc.dfs.core.windows.net", "azure_blob"),
        ("gs://b", "gcs"),
        ("gcs://b", "gcs"),
        ("file:///x", "local"),
        ("data/gs:/x", "local"),
        ("x.json", "local"),
    ],
)
def test_the_type_of_a_source(text: str, kind: str) -> None:
    assert source_type(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://",
        "s3:///x",
        "s3://b*/x",
        "az://",
        "abfss://@acc.dfs.core.windows.net",
        "gs://*/x",
        "file://host/x",
        "a\0b",
        "x1://",
    ],
)
def test_what_is_no_location_is_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError):
        parse_location(text, cwd="/")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (b"/a b/%20#?", "file:///a b/%20#?"),
        ("/é\U0001f600".encode(), "file:///é\U0001f600"),
        (b"/\xff", "file:///\\xff"),
        (b"/\\xff", "file:///\\\\xff"),
        (b"/a\\\xe9", "file:///a\\\\\\xe9"),
        (b"/", "file:///"),
    ],
)
def test_the_key_of_a_file(path: bytes, key: str) -> None:
    assert file_key(path) == key
    assert path_of_key(key) == path


@given(st.binary())
def test_a_key_gives_its_path_back(path: bytes) -> None:
    assert path_of_key(file_key(path)) == path


@given(st.lists(st.sampled_from(["\\", "x", "f", "0", "é", "a"])).map("".join))
def test_an_object_s_key_gives_its_name_back(name: str) -> None:
    schemes: tuple[StoreScheme, ...] = ("s3", "az", "gs")
    for scheme in schemes:
        assert object_of_key(object_key(scheme, "b", name)) == ("b", name)


def test_the_schemes_of_object_keys() -> None:
    assert object_key("s3", "b", "x/y") == "s3://b/x/y"
    assert object_key("az", "c", "x/y") == "az://c/x/y"
    assert object_key("gs", "b", "x/y") == "gs://b/x/y"


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no key of a local file"):
        path_of_key("s3://b/x")
    with pytest.raises(ValueError, match="no key of an object"):
        object_of_key("file:///x")


@pytest.mark.parametrize(
    ("root", "other", "inside"),
    [
        ("file:///data", "file:///data/w", True),
        ("file:///data/", "file:///data", True),
        ("file:///data", "file:///data2", False),
        ("file:///data/w", "file:///data", False),
        ("file:///", "file:///x", True),
        ("s3://b", "s3://b/x", True),
        ("s3://b", "s3://bb/x", False),
        ("file:///data", "s3://data", False),
    ],
)
def test_contains(root: str, other: str, *, inside: bool) -> None:
    assert contains(root, other) is inside


@pytest.mark.parametrize(
    ("root", "pattern", "folder", "could"),
    [
        ("file:///d", None, "file:///d/warehouse", True),
        ("file:///d", "*.csv", "file:///d/warehouse", False),
        ("file:///d", "**/*.csv", "file:///d/warehouse", True),
        ("file:///d", None, "file:///d/.warehouse", False),
        ("file:///d/warehouse/t", "*.csv", "file:///d/warehouse", True),
        ("file:///d", None, "file:///d", True),
        ("file:///d", None, "file:///e", False),
        ("file:///", "*/x", "file:///e", True),
    ],
)
def test_whether_a_source_finds_files_of_a_folder(root: str, pattern: str | None, folder: str, *, could: bool) -> None:
    assert can_find_below(root, Pattern(pattern) if pattern else None, folder) is could


@pytest.mark.parametrize("bucket", ["localhost#", "localhost\\", "a b", "a%2f", "é", "a\n"])
def test_a_bucket_that_would_end_the_hosts_name_is_refused(bucket: str) -> None:
    for scheme in ("s3", "az", "gs"):
        with pytest.raises(InvalidFieldError):
            parse_location(f"{scheme}://{bucket}/key", cwd="/")
