"""Read objects of exactly the version that was listed, by ranges."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.domain.files import SourceFile
from app.domain.locations import object_of_key
from app.sources.aws import AwsKey, AwsSettings
from app.sources.s3_errors import changed, file_error

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Credential

DEFAULT_REGION = "us-east-1"


def open_store(bucket: str, settings: AwsSettings) -> S3Store:
    """A store on `bucket` that gives up on a dead endpoint when the settings' patience is at its end.

    The library also reads the environment; whatever it could find there that matters is said here explicitly.
    """
    client: ClientConfig = {
        # A request is one page or one range, so it has an end in sight; a stalled one is cut off and tried again.
        "connect_timeout": timedelta(seconds=3),
        "read_timeout": timedelta(seconds=settings.patience_s),
        "timeout": timedelta(seconds=120),
        "allow_http": (settings.endpoint_url or "").startswith("http://"),
    }
    retry: RetryConfig = {
        "max_retries": 4,
        # A try that begins within it may still take a whole wait for an answer.
        "retry_timeout": timedelta(seconds=settings.patience_s * 0.8),
        "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
    }
    config: dict[str, Any] = dict(settings.ambient)
    if settings.endpoint_url is not None:
        # Both names: of the two the library prefers the one that the environment may have set.
        config |= {"endpoint": settings.endpoint_url, "aws_endpoint_url_s3": settings.endpoint_url}
    return S3Store(
        bucket,
        config={
            **config,
            "region": settings.region or DEFAULT_REGION,
            # Other servers have one name for all buckets; a bucket with a dot fits no certificate of Amazon's.
            "virtual_hosted_style_request": settings.endpoint_url is None and "." not in bucket,
        },  # type: ignore[arg-type]  # a dictionary of known names
        client_options=client,
        retry_config=retry,
        credential_provider=_FixedKey(settings.key) if settings.key else None,
    )


@dataclass(frozen=True)
class _FixedKey:
    """Gives the key as a whole: set one by one, a session token of the environment would be mixed in."""

    key: AwsKey

    def __call__(self) -> S3Credential:
        return {
            "access_key_id": self.key.access_key_id,
            "secret_access_key": self.key.secret_access_key,
            "token": self.key.session_token,
            "expires_at": None,
        }


def version_of(meta: ObjectMeta) -> str:
    """The version of an object: its etag without quotes, else size and time."""
    etag = (meta["e_tag"] or "").replace('"', "")
    return etag or _dated(meta["size"], meta["last_modified"])


@dataclass
class S3Reader:
    """Reads objects; thread-safe, and picklable with the read key and settings alone."""

    settings: AwsSettings
    _stores: dict[str, S3Store] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[S3Reader], tuple[AwsSettings]]:
        return S3Reader, (self.settings,)

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end` (excluded; None: to the end of the file).

        Raises:
            FileError: The object is gone or has another version by now, or the store does not give it.
        """
        end = file.size_bytes if end is None else min(end, file.size_bytes)
        bucket, name = object_of_key(file.key)
        options: GetOptions = {"if_match": f'"{file.version}"'} if _is_strong(file) else {}
        if start < end:
            options["range"] = (start, end)
        else:
            options["head"] = True
        try:
            result = obstore.get(self._store(bucket), name, options=options)
            # Not every server heeds the condition.
            if version_of(result.meta) != file.version:
                raise changed(file)
            data = bytes(result.bytes()) if start < end else b""
        except (BaseError, OSError, ValueError) as error:
            raise file_error(error, file) from error
        if len(data) != max(end - start, 0):
            raise changed(file)
        return data

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in order, in pieces of `chunk_bytes`; each piece is of the version that was listed.

        Raises:
            FileError: As `read`.
        """
        yield from (
            self.read(file, start, start + chunk_bytes) for start in range(0, max(file.size_bytes, 1), chunk_bytes)
        )

    def _store(self, bucket: str) -> S3Store:
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = open_store(bucket, self.settings)
            return self._stores[bucket]


def _is_strong(file: SourceFile) -> bool:
    """Whether the version is an etag that a server compares; a weak one or a date it does not, so we do."""
    return not file.version.startswith("W/") and file.version != _dated(file.size_bytes, file.modified_at)


def _dated(size_bytes: int, modified_at: datetime) -> str:
    return f"{size_bytes}-{int(modified_at.timestamp())}"
