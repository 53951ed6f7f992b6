"""Which key, region and endpoint an S3 source uses: what is given, the environment, then the user's AWS files."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.endpoints import checked_endpoint
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.sources.access import PATIENCE_S, refuse_control_characters, refuse_unknown

FIELDS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region", "endpoint_url")
# What the library needs to find a key by itself: a web identity, a container's role, the machine's own role.
AMBIENT = (
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_STS_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
    "AWS_IMDSV1_FALLBACK",
    "AWS_SKIP_SIGNATURE",
)
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHER_WAYS = ("credential_process", "sso_session", "sso_start_url", "role_arn")


@dataclass(frozen=True)
class AwsKey:
    """A fixed key. It never shows its secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AwsSettings:
    """What a store is opened with. `key` None: the library finds one by `ambient`.

    `patience_s` is how long a store may stay silent, and about how long a request that fails is tried again.
    """

    key: AwsKey | None = None
    region: str | None = None
    endpoint_url: str | None = None
    ambient: tuple[tuple[str, str], ...] = ()
    patience_s: int = PATIENCE_S


def aws_settings(credentials: Mapping[str, str] | None, environ: Mapping[str, str]) -> AwsSettings:
    """Settle key, region and endpoint, each by itself, from the first place that names it.

    Args:
        credentials: What the source gives; a key given here is used alone, no part of another one is mixed in.
        environ: The environment; it also says where the user's AWS files are.

    Raises:
        InvalidFieldError: A field is unknown or has no use, half a key is given, or the profile does not exist.
        NotSupportedError: The profile gets its key in a way that is not supported.
    """
    given = {name: value for name, value in (credentials or {}).items() if value}
    refuse_unknown(credentials or {}, FIELDS, "S3")
    profile = _profile(environ)
    key = _key(given, "source.credentials") or _key(_lower(environ), "The environment")
    if key is None:
        key = _key(profile, "The AWS profile")
        _refuse_other_ways(profile, key, environ)
    region = given.get("aws_region") or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    region = region or profile.get("region")
    refuse_control_characters({"the region": region}, "The configuration")
    endpoint = given.get("endpoint_url") or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    return AwsSettings(
        key=key,
        region=_checked_region(region),
        endpoint_url=checked_endpoint(endpoint or profile.get("endpoint_url"), "an S3 service"),
        ambient=() if key else tuple((name, environ[name]) for name in AMBIENT if environ.get(name)),
    )


def _checked_region(region: str | None) -> str | None:
    # It becomes a part of the host's name, which must not end there.
    if region and not _REGION.fullmatch(region):
        raise InvalidFieldError("aws_region is no name of a region.", remedy="Give the name alone, such as us-east-1.")
    return region


def _lower(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[name.upper()] for name in FIELDS if environ.get(name.upper())}


def _key(values: Mapping[str, str], where: str) -> AwsKey | None:
    identity, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    if not identity and not secret:
        if values.get("aws_session_token") and where == "source.credentials":
            raise InvalidFieldError("source.credentials has a session token without a key.")
        return None
    if not identity or not secret:
        missing = "aws_secret_access_key" if identity else "aws_access_key_id"
        raise InvalidFieldError(f"{where} has half a key: {missing} is missing.")
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    refuse_control_characters({name: values.get(name) for name in names}, where)
    return AwsKey(identity, secret, values.get("aws_session_token") or None)


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """The profile's settings from both files; those of the credentials file win. Empty where there are no files."""
    name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    config = _sections(environ, "AWS_CONFIG_FILE", "config")
    credentials = _sections(environ, "AWS_SHARED_CREDENTIALS_FILE", "credentials")
    in_config = config.get("default" if name == "default" else f"profile {name}", {})
    if name != "default" and name not in credentials and not in_config:
        raise InvalidFieldError(f"The AWS profile {name!r} does not exist.", remedy="Check AWS_PROFILE.")
    return {**in_config, **credentials.get(name, {})}


def _sections(environ: Mapping[str, str], variable: str, default: str) -> dict[str, dict[str, str]]:
    home = environ.get("HOME", "")
    named = environ.get(variable)
    if not named and not home:
        return {}
    path = Path(named.replace("~", home, 1) if named and named.startswith("~/") else named or f"{home}/.aws/{default}")
    # Values may hold a percent sign, and a section called DEFAULT is none of the parser's business.
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, configparser.Error):
        # Without the cause: a parser's message quotes the line, and the line may be a secret.
        raise InvalidFieldError(f"{path} cannot be read as an AWS configuration file.") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def _refuse_other_ways(profile: Mapping[str, str], key: AwsKey | None, environ: Mapping[str, str]) -> None:
    way = next((way for way in _OTHER_WAYS if profile.get(way)), None)
    if key is None and way and (environ.get("AWS_PROFILE") or not any(environ.get(name) for name in AMBIENT)):
        raise NotSupportedError(
            f"The AWS profile gets its key by {way}, which is not supported yet.",
            remedy="Export a key: `aws configure export-credentials --format env` prints one.",
        )
