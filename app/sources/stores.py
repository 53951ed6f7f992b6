"""Open the sources in object stores. A module of its own, so that a load of local files imports no store's library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.domain.locations import Location
from app.domain.patterns import Pattern
from app.sources.aws import aws_settings
from app.sources.azure import azure_settings
from app.sources.azure_blob import AzureAccess
from app.sources.gcs import GoogleAccess
from app.sources.google import google_settings
from app.sources.naming import literally, only
from app.sources.object_store import ObjectStoreSource
from app.sources.s3 import S3Access

if TYPE_CHECKING:
    from app.domain.reach import Reach


def open_store(
    location: Location,
    credentials: Mapping[str, str] | None,
    environ: Mapping[str, str],
    wanted: Pattern | None,
    complete_when: str | None,
    *,
    reach: Reach | None = None,
) -> ObjectStoreSource:
    """The source in an object store.

    Raises:
        InvalidFieldError: A field is of no use.
        SourceNotAllowedError: `reach` is given, and its endpoint is not in it.
        BucketNotFoundError, SourceAuthError, SourceUnreachableError: The store was asked whether a name that looks
            like a pattern exists, and did not say.
    """
    access = _access(location, credentials, environ, reach)
    source = ObjectStoreSource(literally(location), access, wanted, complete_when=complete_when)
    if location.pattern is None or source.exists():
        return source
    return ObjectStoreSource(location, access, only(location.pattern, wanted), complete_when=complete_when)


def _access(
    location: Location, credentials: Mapping[str, str] | None, environ: Mapping[str, str], reach: Reach | None
) -> S3Access | AzureAccess | GoogleAccess:
    gate = None
    if reach is not None:
        from app.sources.gates import gate_of  # noqa: PLC0415  # only the service has them

        gate = gate_of(location.scheme, credentials or {}, reach)
    if location.scheme == "az":
        return AzureAccess(azure_settings(credentials, environ, account=location.account), gate)
    if location.scheme == "gs":
        return GoogleAccess(google_settings(credentials, environ), gate)
    return S3Access(aws_settings(credentials, environ), gate)
