"""Key, region and endpoint come from the first place that names them, and a key is never mixed from two."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.errors import InvalidFieldError, NotSupportedError
from app.sources.aws import AwsKey, AwsSettings, aws_settings

GIVEN = {"aws_access_key_id": "given", "aws_secret_access_key": "s1"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "environment", "AWS_SECRET_ACCESS_KEY": "s2", "AWS_SESSION_TOKEN": "t2"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = file\naws_secret_access_key = s%3\n"
        "[other]\naws_access_key_id = other\naws_secret_access_key = s4\naws_session_token = t4\n"
    )
    (tmp_path / ".aws" / "config").write_text(
        "[default]\nregion = eu-central-1\n"
        "[profile other]\nregion = eu-west-1\nendpoint_url = http://127.0.0.1:1/\n"
        "[profile sso]\nsso_session = x\n"
        "[profile inline]\naws_access_key_id = inline\naws_secret_access_key = s5\n"
    )
    return {"HOME": str(tmp_path)}


def test_what_is_given_comes_first(home: dict[str, str]) -> None:
    settings = aws_settings(GIVEN, ENVIRONMENT | home)
    assert settings.key == AwsKey("given", "s1", None)


def test_then_the_environment(home: dict[str, str]) -> None:
    assert aws_settings({}, ENVIRONMENT | home).key == AwsKey("environment", "s2", "t2")


def test_then_the_files(home: dict[str, str]) -> None:
    assert aws_settings(None, home) == AwsSettings(AwsKey("file", "s%3"), "eu-central-1")
    other = aws_settings(None, home | {"AWS_PROFILE": "other"})
    assert other == AwsSettings(AwsKey("other", "s4", "t4"), "eu-west-1", "http://127.0.0.1:1")
    inline = aws_settings(None, home | {"AWS_PROFILE": "inline"})
    assert inline.key == AwsKey("inline", "s5")


def test_the_files_may_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("[default]\naws_access_key_id=a\naws_secret_access_key=b\n")
    (tmp_path / "d").write_text("[default]\nregion=r\n")
    environ = {"HOME": str(tmp_path), "AWS_SHARED_CREDENTIALS_FILE": "~/c", "AWS_CONFIG_FILE": str(tmp_path / "d")}
    assert aws_settings(None, environ) == AwsSettings(AwsKey("a", "b"), "r")


def test_then_what_the_library_finds() -> None:
    environ = {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/f", "OTHER": "x"}
    settings = aws_settings(None, environ)
    assert settings.key is None
    assert dict(settings.ambient) == {"AWS_ROLE_ARN": "arn", "AWS_WEB_IDENTITY_TOKEN_FILE": "/f"}
    assert aws_settings(GIVEN, environ).ambient == ()


@pytest.mark.parametrize(
    ("credentials", "environ", "region"),
    [
        ({"aws_region": "a"}, {"AWS_REGION": "b"}, "a"),
        ({}, {"AWS_REGION": "b", "AWS_DEFAULT_REGION": "c"}, "b"),
        ({}, {"AWS_DEFAULT_REGION": "c"}, "c"),
        ({}, {}, None),
    ],
)
def test_the_region(credentials: dict[str, str], environ: dict[str, str], region: str | None) -> None:
    assert aws_settings(credentials, environ).region == region


@pytest.mark.parametrize(
    ("credentials", "environ", "endpoint"),
    [
        ({"endpoint_url": "https://a"}, {"AWS_ENDPOINT_URL": "http://b"}, "https://a"),
        (GIVEN, {"AWS_ENDPOINT_URL": "http://b/"}, "http://b"),
        ({}, {"AWS_ENDPOINT_URL": "http://b", "AWS_ENDPOINT_URL_S3": "http://c:1"}, "http://c:1"),
        ({}, {}, None),
    ],
)
def test_the_endpoint(credentials: dict[str, str], environ: dict[str, str], endpoint: str | None) -> None:
    assert aws_settings(credentials, environ).endpoint_url == endpoint


@pytest.mark.parametrize(
    ("credentials", "environ", "says"),
    [
        ({"aws_secret_key": "hidden"}, {}, "'aws_secret_key'"),
        ({"aws_access_key_id": "a"}, {}, "aws_secret_access_key is missing"),
        ({"aws_secret_access_key": "hidden"}, {}, "aws_access_key_id is missing"),
        ({"aws_session_token": "hidden"}, {}, "session token"),
        ({}, {"AWS_ACCESS_KEY_ID": "a"}, "The environment has half a key"),
        ({}, {"AWS_PROFILE": "nobody"}, "'nobody'"),
        ({"endpoint_url": "ftp://x"}, {}, "endpoint_url"),
        ({"endpoint_url": "localhost:9000"}, {}, "endpoint_url"),
        ({"endpoint_url": "http://user:hidden@h"}, {}, "endpoint_url"),
        ({"endpoint_url": "http://h?x=hidden"}, {}, "endpoint_url"),
        ({"endpoint_url": "http://h\n"}, {}, "endpoint_url"),
        ({**GIVEN, "aws_session_token": "hidden\n"}, {}, "control character in aws_session_token"),
        ({**GIVEN, "aws_access_key_id": "hidden\r"}, {}, "control character in aws_access_key_id"),
        ({}, {"AWS_ACCESS_KEY_ID": "hidden", "AWS_SECRET_ACCESS_KEY": "hidden\n"}, "The environment has a line end"),
        ({}, {"AWS_REGION": "a\nb"}, "region"),
    ],
)
def test_what_is_of_no_use_is_refused(credentials: dict[str, str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        aws_settings(credentials, environ)
    assert says in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_profile_that_gets_its_key_in_another_way_is_named(home: dict[str, str]) -> None:
    with pytest.raises(NotSupportedError, match="sso_session"):
        aws_settings(None, home | {"AWS_PROFILE": "sso"})
    assert aws_settings(GIVEN, home | {"AWS_PROFILE": "sso"}).key == AwsKey("given", "s1")


def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("hidden secret without a section\n")
    with pytest.raises(InvalidFieldError, match="credentials cannot be read") as refused:
        aws_settings(None, {"HOME": str(tmp_path)})
    assert "hidden" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_no_secret_shows() -> None:
    shown = repr(aws_settings({**GIVEN, "aws_session_token": "t1"}, {}))
    assert "given" in shown
    assert "s1" not in shown
    assert "t1" not in shown


@pytest.mark.parametrize("region", ["@127.0.0.1:9000/", "x.example.com/", "a b", "us-east-1#", "us-east-1?", "é"])
def test_a_region_that_would_end_the_hosts_name_is_refused(region: str) -> None:
    for given, environ in (({"aws_region": region}, {}), (None, {"AWS_REGION": region})):
        with pytest.raises(InvalidFieldError, match="aws_region"):
            aws_settings(given, environ)
