"""Account, key and endpoint of an Azure source come from the first place that names them; no secret is shown."""

from __future__ import annotations

import pytest

from app.domain.errors import InvalidFieldError, NotSupportedError
from app.sources.azure import AzureSettings, azure_settings

KEY = "c2VjcmV0LWtleQ=="
TOKEN = "sv=2021-12-02&sp=rl&sig=secret%3D"
GIVEN = {"account_name": "given", "account_key": KEY}
ENVIRON = {"AZURE_STORAGE_ACCOUNT_NAME": "environment", "AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI="}


def test_what_is_given_comes_first() -> None:
    settings = azure_settings(GIVEN, ENVIRON | {"AZURE_STORAGE_SAS_TOKEN": TOKEN, "AZURE_CLIENT_ID": "x"})
    assert settings == AzureSettings("given", account_key=KEY)


def test_then_the_environment() -> None:
    assert azure_settings(None, ENVIRON) == AzureSettings("environment", account_key="b3RoZXI=")
    assert azure_settings({}, {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_KEY": KEY}).account_key == KEY


def test_a_token_of_the_environment_is_used_where_there_is_no_key() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": f"?{TOKEN}"}
    assert azure_settings(None, environ) == AzureSettings("a", sas_token=TOKEN)
    assert azure_settings(None, environ | {"AZURE_STORAGE_ACCOUNT_KEY": KEY}) == AzureSettings("a", account_key=KEY)


def test_the_account_of_the_path() -> None:
    assert azure_settings(None, {"AZURE_STORAGE_ACCOUNT_KEY": KEY}, account="path").account_name == "path"
    assert azure_settings({"account_name": "path"}, {}, account="path").account_name == "path"
    with pytest.raises(InvalidFieldError, match="another"):
        azure_settings(GIVEN, {}, account="path")


def test_a_key_of_the_environment_is_not_used_for_another_account() -> None:
    assert azure_settings({"account_name": "mine"}, ENVIRON).account_key is None
    assert azure_settings(None, ENVIRON, account="mine").account_key is None
    assert azure_settings({"account_name": "environment"}, ENVIRON).account_key == "b3RoZXI="


def test_without_a_key_the_library_looks_for_an_identity() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_OTHER": "x"}
    assert azure_settings(None, environ).ambient == (("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"))


def test_an_identity_that_readers_could_not_use_is_refused() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT_NAME": "a", "IDENTITY_ENDPOINT": "http://x", "IDENTITY_HEADER": "secret"}
    with pytest.raises(NotSupportedError, match="App Service") as refused:
        azure_settings(None, environ)
    assert "secret" not in str(refused.value)
    assert azure_settings(None, environ | {"AZURE_STORAGE_ACCOUNT_KEY": KEY}).account_key == KEY
    assert azure_settings(None, environ | {"AZURE_FEDERATED_TOKEN_FILE": "/t"}).ambient
    assert azure_settings(None, environ | {"AZURE_SKIP_SIGNATURE": "true"}).ambient


@pytest.mark.parametrize(
    ("credentials", "environ", "endpoint"),
    [
        ({"endpoint_url": "https://a/"}, {"AZURE_STORAGE_ENDPOINT": "http://b"}, "https://a"),
        ({}, {"AZURE_STORAGE_ENDPOINT": "http://b:1/acc"}, "http://b:1/acc"),
        ({}, {"AZURE_ENDPOINT": "http://c"}, "http://c"),
        ({}, {}, None),
    ],
)
def test_the_endpoint(credentials: dict[str, str], environ: dict[str, str], endpoint: str | None) -> None:
    assert azure_settings(GIVEN | credentials, environ).endpoint_url == endpoint


@pytest.mark.parametrize(
    ("credentials", "environ", "says"),
    [
        ({"aws_region": "x"}, {}, "unknown field 'aws_region'"),
        ({}, {}, "not named"),
        ({"account_name": "a/../hidden"}, {}, "no name"),
        ({**GIVEN, "sas_token": TOKEN}, {}, "account_key and sas_token"),
        ({"account_name": "a", "account_key": "hidden!"}, {}, "base64"),
        ({"account_name": "a", "sas_token": "sv=hidden"}, {}, "no signature"),
        ({"account_name": "a", "sas_token": "https://x/?sig=hidden"}, {}, "token alone"),
        ({**GIVEN, "endpoint_url": "ftp://x"}, {}, "endpoint_url"),
        ({**GIVEN, "endpoint_url": "https://h?sig=hidden"}, {}, "endpoint_url"),
        ({**GIVEN, "endpoint_url": "https://me:hidden@h"}, {}, "endpoint_url"),
        ({**GIVEN, "endpoint_url": "https://[h"}, {}, "endpoint_url"),
        (GIVEN, {"AZURE_STORAGE_ENDPOINT": "localhost:10000"}, "endpoint_url"),
    ],
)
def test_what_is_of_no_use_is_refused(credentials: dict[str, str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        azure_settings(credentials, environ)
    assert says in str(refused.value)
    assert "hidden" not in str(refused.value).replace("'a/../hidden'", "")


def test_no_secret_shows() -> None:
    environ = {"AZURE_CLIENT_SECRET": "secret"}
    shown = (azure_settings(GIVEN, {}), azure_settings({"account_name": "a", "sas_token": TOKEN}, {}))
    assert KEY not in repr(shown)
    assert "secret" not in repr((*shown, azure_settings({"account_name": "a"}, environ)))
