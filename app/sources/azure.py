"""Which account, key and endpoint an Azure source uses: what is given, then the environment, then the machine."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.endpoints import checked_endpoint
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.sources.access import PATIENCE_S, refuse_unknown

FIELDS = ("account_name", "account_key", "sas_token", "endpoint_url")
_NAMES = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
# What the library needs to find a token by itself: an application's or a workload's identity, the machine's own.
AMBIENT = (
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
    "AZURE_MSI_RESOURCE_ID",
    "AZURE_OBJECT_ID",
    "AZURE_SKIP_SIGNATURE",
    "AZURE_TENANT_ID",
    "AZURE_USE_AZURE_CLI",
)


@dataclass(frozen=True)
class AzureSettings:
    """What a container is opened with. Neither key nor token: the library finds a token by `ambient`.

    At most one of `account_key` and `sas_token` is given. `patience_s` is as in `AwsSettings`.
    """

    account_name: str
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    ambient: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    patience_s: int = PATIENCE_S


def azure_settings(
    credentials: Mapping[str, str] | None, environ: Mapping[str, str], *, account: str | None = None
) -> AzureSettings:
    """Settle account, key and endpoint, from the first place that names each.

    Args:
        credentials: What the source gives.
        environ: The environment. A key there is used for the account that it names there, or where it names none.
        account: The account in the source's path, if it names one.

    Raises:
        InvalidFieldError: A field is unknown or has no use, no account is named, or two are.
        NotSupportedError: The machine's own identity is of a kind that is not supported.
    """
    given = {name: value for name, value in (credentials or {}).items() if value}
    refuse_unknown(credentials or {}, FIELDS, "Azure")
    if account and given.get("account_name", account) != account:
        raise InvalidFieldError(
            f"source.path is in the account {account!r}, and source.credentials names another one in account_name."
        )
    in_environ = _first(environ, _NAMES)
    name = _checked_name(given.get("account_name") or account or in_environ)
    key, token = _key(given)
    if not (key or token) and in_environ in (None, name):
        # The tools that read these variables take the key first.
        key = _first(environ, _KEYS)
        token = None if key else environ.get("AZURE_STORAGE_SAS_TOKEN") or None
    if not (key or token):
        _refuse_other_identities(environ)
    endpoint = given.get("endpoint_url") or environ.get("AZURE_STORAGE_ENDPOINT") or environ.get("AZURE_ENDPOINT")
    return AzureSettings(
        name,
        account_key=_checked_key(key),
        sas_token=_checked_token(token),
        endpoint_url=checked_endpoint(endpoint or None, "a Blob service"),
        ambient=() if key or token else _ambient(environ),
    )


def _ambient(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = {name: environ[name] for name in AMBIENT if environ.get(name)}
    if "AZURE_MSI_ENDPOINT" in found:
        # Two names of one thing, which the library refuses to be told twice.
        found.pop("AZURE_IDENTITY_ENDPOINT", None)
    return tuple(found.items())


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


def _checked_name(name: str | None) -> str:
    if name is None:
        raise InvalidFieldError(
            "The source's storage account is not named.",
            remedy="Set AZURE_STORAGE_ACCOUNT_NAME, or give account_name in the credentials.",
        )
    if not _NAME.fullmatch(name):
        raise InvalidFieldError(f"{name!r} is no name of a storage account.", remedy="Give the name alone, no address.")
    return name


def _refuse_other_identities(environ: Mapping[str, str]) -> None:
    """Refuse what would find the files and then not read them: the header's value does not reach the readers."""
    application = environ.get("AZURE_CLIENT_SECRET") or environ.get("AZURE_FEDERATED_TOKEN_FILE")
    if environ.get("IDENTITY_HEADER") and not application and not environ.get("AZURE_SKIP_SIGNATURE"):
        raise NotSupportedError(
            "The identity of an App Service or a Container App is not supported as a source's key.",
            remedy="Give account_key or sas_token, or an application's identity by AZURE_CLIENT_ID and its companions.",
        )


def _key(given: Mapping[str, str]) -> tuple[str | None, str | None]:
    if "account_key" in given and "sas_token" in given:
        raise InvalidFieldError("source.credentials has account_key and sas_token.", remedy="Give one of the two.")
    return given.get("account_key"), given.get("sas_token")


def _checked_key(key: str | None) -> str | None:
    if key is not None:
        try:
            base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            # Without the cause, which may quote the key.
            raise InvalidFieldError(
                "The storage account's key is no base64.", remedy="Copy it whole, with the = at its end."
            ) from None
    return key


def _checked_token(token: str | None) -> str | None:
    if token is None:
        return None
    token = token.removeprefix("?")
    if "sig=" not in token or "://" in token:
        raise InvalidFieldError(
            "The SAS token has no signature.", remedy="Give the token alone, from sv= or se= on to the end of sig=…."
        )
    return token
