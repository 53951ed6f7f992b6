"""Key and endpoint of a Google source come from the first place that names them; no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.domain.errors import AutoloaderError, InvalidFieldError, NotSupportedError
from app.sources.google import GoogleSettings, google_settings

KEY = json.dumps(
    {
        "type": "service_account",
        "client_email": "loader@project",
        "private_key": "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
        "private_key_id": "1",
    }
)
EMULATED = json.dumps(
    {
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
        "gcs_base_url": "http://127.0.0.1:4443",
    }
)
GIVEN = {"service_account_key": KEY}


def _file(folder: Path, document: object) -> str:
    path = folder / "key.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_what_is_given_comes_first(tmp_path: Path) -> None:
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "nowhere"), "HOME": str(tmp_path)}
    assert google_settings(GIVEN, environ) == GoogleSettings(service_account_key=KEY)


@pytest.mark.parametrize("kind", ["service_account", "authorized_user"])
def test_then_the_file_that_the_environment_names(tmp_path: Path, kind: str) -> None:
    path = _file(tmp_path, {"type": kind})
    assert google_settings(None, {"GOOGLE_APPLICATION_CREDENTIALS": path}) == GoogleSettings(key_file=path)


def test_then_the_user_s_own_file(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "gcloud"
    folder.mkdir(parents=True)
    path = folder / "application_default_credentials.json"
    path.write_text('{"type": "authorized_user"}')
    assert google_settings({}, {"HOME": str(tmp_path)}) == GoogleSettings(key_file=str(path))


def test_then_the_machine(tmp_path: Path) -> None:
    assert google_settings(None, {"HOME": str(tmp_path)}) == GoogleSettings()


@pytest.mark.parametrize("environ", [{"GOOGLE_SKIP_SIGNATURE": "true"}, {"GOOGLE_SKIP_SIGNATURE": "1", "HOME": "/"}])
def test_public_buckets_need_no_key(environ: dict[str, str]) -> None:
    assert google_settings(None, environ) == GoogleSettings(anonymous=True)


@pytest.mark.parametrize(
    ("credentials", "environ", "endpoint", "anonymous"),
    [
        ({**GIVEN, "endpoint_url": "https://a/"}, {"STORAGE_EMULATOR_HOST": "b:1"}, "https://a", False),
        ({"service_account_key": EMULATED}, {}, "http://127.0.0.1:4443", False),
        ({"service_account_key": EMULATED, "endpoint_url": "http://c"}, {}, "http://c", False),
        (GIVEN, {"STORAGE_EMULATOR_HOST": "b:1"}, "http://b:1", False),
        ({}, {"STORAGE_EMULATOR_HOST": "b:1"}, "http://b:1", True),
        ({}, {"STORAGE_EMULATOR_HOST": "https://b"}, "https://b", True),
        ({"endpoint_url": "https://a"}, {"STORAGE_EMULATOR_HOST": "b:1"}, "https://a", False),
    ],
)
def test_the_endpoint(
    credentials: dict[str, str], environ: dict[str, str], endpoint: str | None, *, anonymous: bool
) -> None:
    settings = google_settings(credentials, environ)
    assert (settings.endpoint_url, settings.anonymous) == (endpoint, anonymous)


@pytest.mark.parametrize(
    ("credentials", "environ", "says"),
    [
        ({"account_name": "x"}, {}, "unknown field 'account_name'"),
        ({"service_account_key": "hidden"}, {}, "no JSON object"),
        ({"service_account_key": '["hidden"]'}, {}, "no JSON object"),
        ({"service_account_key": '{"client_email": "hidden"}'}, {}, "has no private_key"),
        ({"service_account_key": KEY.replace("PRIVATE KEY", "hidden")}, {}, "private_key that is none"),
        ({"service_account_key": EMULATED.replace("http:", "file:")}, {}, "endpoint_url"),
        ({**GIVEN, "endpoint_url": "http://me:hidden@h"}, {}, "endpoint_url"),
        ({}, {"STORAGE_EMULATOR_HOST": "http://"}, "endpoint_url"),
        (GIVEN, {"GOOGLE_SERVICE_ACCOUNT": "hidden"}, "GOOGLE_SERVICE_ACCOUNT is set"),
        ({}, {"GOOGLE_BEARER_TOKEN": "hidden"}, "GOOGLE_BEARER_TOKEN is set"),
        ({}, {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json"}, "/nowhere/key.json cannot be read"),
    ],
)
def test_what_is_of_no_use_is_refused(credentials: dict[str, str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        google_settings(credentials, environ)
    assert says in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("hidden", InvalidFieldError),
        ('["hidden"]', InvalidFieldError),
        ({"type": "external_account", "token": "hidden"}, NotSupportedError),
        ({"token": "hidden"}, NotSupportedError),
    ],
)
def test_a_file_of_no_use_is_refused(tmp_path: Path, document: object, error: type[AutoloaderError]) -> None:
    path = _file(tmp_path, document)
    with pytest.raises(error) as refused:
        google_settings(None, {"GOOGLE_APPLICATION_CREDENTIALS": path})
    assert path in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_no_secret_shows() -> None:
    assert "secret" not in repr(google_settings(GIVEN, {}))
