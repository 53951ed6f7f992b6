"""Open the source that a definition names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from app.domain import patterns
from app.domain.errors import InvalidFieldError
from app.domain.locations import Location, parse_location
from app.domain.patterns import Pattern
from app.sources.access import StoreAccess
from app.sources.aws import aws_settings
from app.sources.azure import azure_settings
from app.sources.azure_blob import AzureAccess
from app.sources.gcs import GoogleAccess
from app.sources.google import google_settings
from app.sources.local import LocalSource
from app.sources.object_store import ObjectStoreSource
from app.sources.s3 import S3Access


def open_source(
    path: str,
    *,
    file_pattern: str | None,
    credentials: Mapping[str, str] | None,
    environ: Mapping[str, str],
    cwd: str | None = None,
) -> LocalSource | ObjectStoreSource:
    """The source at `path`; a name with glob characters that exists is taken as it is written.

    Args:
        path: A URI, folder, file or pattern.
        file_pattern: What to look for below a folder.
        credentials: The fields of `source.credentials`; None or empty: the default chain.
        environ: The environment that keys, region and endpoint may come from.
        cwd: The folder that a relative path starts from; None: the one this process is in.

    Raises:
        InvalidFieldError, NotSupportedError: A field is of no use.
        BucketNotFoundError, SourceAuthError, SourceUnreachableError: The store was asked whether a name that looks
            like a pattern exists, and did not say.
    """
    location = parse_location(path, cwd=cwd or os.getcwd())  # noqa: PTH109
    wanted = patterns.file_pattern(file_pattern) if file_pattern is not None else None
    if location.scheme == "file":
        if credentials:
            raise InvalidFieldError("source.credentials has no use for local files.")
        return _local(location, wanted)
    return _in_store(location, _access(location, credentials, environ), wanted)


def _access(
    location: Location, credentials: Mapping[str, str] | None, environ: Mapping[str, str]
) -> S3Access | AzureAccess | GoogleAccess:
    if location.scheme == "az":
        return AzureAccess(azure_settings(credentials, environ, account=location.account))
    if location.scheme == "gs":
        return GoogleAccess(google_settings(credentials, environ))
    return S3Access(aws_settings(credentials, environ))


def _local(location: Location, wanted: Pattern | None) -> LocalSource:
    literal = _literally(location)
    if location.pattern is None or os.path.lexists(os.fsencode(literal.path)):
        return LocalSource(literal, wanted)
    return LocalSource(location, _only(location.pattern, wanted))


def _in_store(location: Location, access: StoreAccess, wanted: Pattern | None) -> ObjectStoreSource:
    source = ObjectStoreSource(_literally(location), access, wanted)
    if location.pattern is None or source.exists():
        return source
    return ObjectStoreSource(location, access, _only(location.pattern, wanted))


def _literally(location: Location) -> Location:
    return replace(location, path=location.literal, pattern=None)


def _only(pattern: str, wanted: Pattern | None) -> Pattern:
    if wanted is not None:
        raise InvalidFieldError(
            "source.path has a pattern already, and source.file_pattern is given too.", remedy="Give one of the two."
        )
    return Pattern(pattern)
