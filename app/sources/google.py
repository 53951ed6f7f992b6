"""Which key and endpoint a Google source uses: what is given, the environment, the user's own, then the machine's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.endpoints import checked_endpoint
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.sources.access import PATIENCE_S, refuse_unknown

FIELDS = ("service_account_key", "endpoint_url")
# The library reads these too, before what it is given; nobody else does.
_MISLEADING = (
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
)
_USER_FILE = ".config/gcloud/application_default_credentials.json"
_KINDS = ("service_account", "authorized_user")
_KEY_PARTS = ("client_email", "private_key", "private_key_id")


@dataclass(frozen=True)
class GoogleSettings:
    """What a bucket is opened with.

    `service_account_key` is the key's JSON text; else `key_file` is a file of application default credentials; neither:
    the library asks the machine for a token, or signs nothing when `anonymous`. `patience_s` is as in `AwsSettings`.
    """

    service_account_key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    endpoint_url: str | None = None
    anonymous: bool = False
    patience_s: int = PATIENCE_S


def google_settings(credentials: Mapping[str, str] | None, environ: Mapping[str, str]) -> GoogleSettings:
    """Settle key and endpoint, each by itself, from the first place that names it.

    Args:
        credentials: What the source gives.
        environ: The environment; it also says where the user's files are.

    Raises:
        InvalidFieldError: A field is unknown or is no key, or a named file cannot be read.
        NotSupportedError: The file's way to a token is not supported.
    """
    given = {name: value for name, value in (credentials or {}).items() if value}
    refuse_unknown(credentials or {}, FIELDS, "Google Cloud Storage")
    _refuse_misleading(environ)
    key = given.get("service_account_key")
    endpoint, emulator = given.get("endpoint_url"), environ.get("STORAGE_EMULATOR_HOST")
    if key is not None:
        _check_key(key)
        named = endpoint or named_endpoint(key)
        return GoogleSettings(service_account_key=key, endpoint_url=_endpoint(named or _url(emulator)))
    if environ.get("GOOGLE_SKIP_SIGNATURE", "").lower() in {"1", "true", "yes", "on"} or (emulator and not endpoint):
        return GoogleSettings(endpoint_url=_endpoint(endpoint or _url(emulator)), anonymous=True)
    return GoogleSettings(key_file=_key_file(environ), endpoint_url=_endpoint(endpoint))


def named_endpoint(key: str | None) -> str | None:
    """The endpoint that a service account's key names in itself."""
    named = (_document(key) or {}).get("gcs_base_url") if key else None
    return str(named) if named else None


def _endpoint(endpoint: str | None) -> str | None:
    return checked_endpoint(endpoint, "a Google Cloud Storage service")


def _url(emulator: str | None) -> str | None:
    """The emulator's address, which is often given as a mere host and port."""
    return emulator if not emulator or "://" in emulator else f"http://{emulator}"


def _refuse_misleading(environ: Mapping[str, str]) -> None:
    found = next((name for name in _MISLEADING if environ.get(name)), None)
    if found:
        raise InvalidFieldError(
            f"{found} is set in the environment, and has no meaning here.",
            remedy="Unset it; GOOGLE_APPLICATION_CREDENTIALS names a key's file.",
        )


def _check_key(text: str) -> None:
    document = _document(text)
    missing = [part for part in _KEY_PARTS if not isinstance(document.get(part), str)] if document else []
    if document is None or missing:
        reason = f"has no {missing[0]}" if missing else "is no JSON object"
        raise InvalidFieldError(
            f"source.credentials.service_account_key {reason}.",
            remedy="Give the service account's key as Google's console saves it, as an object or its text.",
        )
    if not document.get("disable_oauth") and "PRIVATE KEY" not in str(document["private_key"]):
        raise InvalidFieldError("source.credentials.service_account_key has a private_key that is none.")


def _document(text: str) -> dict[str, object] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _key_file(environ: Mapping[str, str]) -> str | None:
    """The file of application default credentials, checked; None: there is none, and the machine is asked."""
    named, home = environ.get("GOOGLE_APPLICATION_CREDENTIALS"), environ.get("HOME")
    path = Path(named) if named else Path(home or "/", _USER_FILE)
    if not named and not path.is_file():
        return None
    try:
        document = _document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        document = None
    if document is None:
        raise InvalidFieldError(f"{path} cannot be read as a file of Google credentials.")
    if document.get("type") not in _KINDS:
        raise NotSupportedError(
            f"{path} holds Google credentials of a type that is not supported.",
            remedy=f"Supported are: {', '.join(_KINDS)}; and the machine's own, where no file is named.",
        )
    return str(path.absolute())
