"""Errors of pyiceberg, its catalogs and its storage, said in our words."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeAlias

from pydantic import ValidationError as InvalidDocument
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    BadRequestError,
    CommitFailedException,
    ForbiddenError,
    NoSuchNamespaceError,
    NoSuchPropertyException,
    NoSuchTableError,
    NotInstalledError,
    OAuthError,
    RESTError,
    TableAlreadyExistsError,
    UnauthorizedError,
    ValidationError,
    ValidationException,
)

from app.destinations.refusal import Refused
from app.domain.errors import (
    AutoloaderError,
    CatalogAuthError,
    CatalogNotConfiguredError,
    CatalogRefusedError,
    CatalogUnreachableError,
    CommitUnknownError,
    TableConflictError,
    TableNotFoundError,
    TableUnreadableError,
    WriteFailureError,
)

Translation: TypeAlias = Callable[[BaseException, str], AutoloaderError | None]

_AUTH_ERRORS = (UnauthorizedError, ForbiddenError, AuthorizationExpiredError, OAuthError)
_DENIED = re.compile(
    r"ACCESS_DENIED|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|INVALID_ACCESS_KEY", re.IGNORECASE
)
_SECRET_NAME = re.compile(
    r"secret|token|credential|password|access-key|account-key|sas|service-account|private", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):([^/@\s]+)@")
# What signs a request or a link, wherever a server or a library quotes it.
_NAMES = (
    "(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|Credential|sig|access_token"
    "|refresh_token|client_secret)"
)
# Of a form and a link, to the end of the field: where a secret is not escaped, its second half would stay.
_IN_FORM = re.compile(rf"({_NAMES}=)(?![\"'])[^\s&]+", re.IGNORECASE)
_SIGNING = re.compile(
    rf"({_NAMES}[\"']?\s*[=:]\s*[\"']?|(?:Bearer|Basic)\s+)[^\s&,;\"'<>)]+",
    re.IGNORECASE,
)
_LONGEST = 300
_SHORTEST_SECRET = 4
# SQLite's codes say more in the bits above these.
_PRIMARY_CODE = 0xFF


class translated:  # noqa: N801  # reads as the verb it is: `with translated(reading, subject):`
    """Raise what `translation` makes of an error inside the block, from that error; others pass as they are."""

    def __init__(self, translation: Translation, subject: str) -> None:
        self._translation = translation
        self._subject = subject

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, AutoloaderError):
            return
        ours = self._translation(error, self._subject)
        if ours is not None:
            raise ours from error


def opening(error: BaseException, catalog: str) -> AutoloaderError | None:
    """What went wrong when a catalog was opened."""
    if isinstance(error, NotInstalledError):
        return CatalogNotConfiguredError(
            f"The catalog {catalog!r} needs a package that is not installed: {short(error)}."
        )
    if isinstance(error, (InvalidDocument, json.JSONDecodeError)):
        return CatalogUnreachableError(f"What answers for the catalog {catalog!r} is no Iceberg catalog.")
    if isinstance(error, (ValueError, KeyError, NoSuchPropertyException)) and not isinstance(error, OSError):
        return CatalogNotConfiguredError(f"The catalog {catalog!r} is configured wrongly: {short(error)}.")
    return _connection(error, f"The catalog {catalog!r}")


def reading(error: BaseException, table: str) -> AutoloaderError | None:
    """What went wrong when a table was loaded; nothing was changed."""
    if isinstance(error, Refused):
        return error.error
    if isinstance(error, (NoSuchTableError, NoSuchNamespaceError)):
        return TableNotFoundError(f"There is no table {table}.")
    if isinstance(error, FileNotFoundError):
        return TableUnreadableError(f"A metadata file of the table {table} is missing: {short(error)}.")
    if isinstance(error, PermissionError):
        return TableUnreadableError(f"A metadata file of the table {table} may not be read: {short(error)}.")
    if isinstance(error, (ValueError, TypeError, KeyError, ValidationError)) and not isinstance(error, OSError):
        return _not_understood(error, table)
    return _connection(error, f"The catalog of {table}")


def _not_understood(error: BaseException, table: str) -> AutoloaderError:
    if isinstance(error, InvalidDocument) and error.title.endswith("Response"):
        # The answer is no good, which says nothing about the table: something between may have cut it.
        return CatalogUnreachableError(
            f"What answers for the catalog of {table} gives no answer of an Iceberg catalog."
        )
    return TableUnreadableError(f"The metadata of the table {table} is broken: {short(error)}.")


def listing(error: BaseException, table: str) -> AutoloaderError | None:
    """What went wrong when the files beside a table were looked at; nothing was changed."""
    return _connection(error, f"The storage of {table}")


def creating(error: BaseException, table: str) -> AutoloaderError | None:
    """What went wrong before a new table was committed; nothing was changed."""
    if isinstance(error, (TableAlreadyExistsError, CommitFailedException)):
        return TableConflictError(f"The table {table} exists by now.")
    if isinstance(error, _AUTH_ERRORS):
        return _connection(error, f"The catalog of {table}")
    if isinstance(error, (BadRequestError, ValueError, NotImplementedError)) and not isinstance(error, OSError):
        return CatalogRefusedError(f"The catalog refuses to make the table {table}: {short(error)}.")
    return _connection(error, f"The catalog of {table}")


def preparing(error: BaseException, table: str, *, location: str = "") -> AutoloaderError | None:
    """What went wrong when a commit was written down, before it was sent; nothing was changed."""
    if isinstance(error, OSError) and not (isinstance(error, FileNotFoundError) or _is_remote(error)):
        return _unwritten(error, table, location)
    return reading(error, table)


def unwritten(error: BaseException, table: str, *, catalog: object, location: str) -> AutoloaderError | None:
    """A commit that surely was not applied, because an SQL catalog could not write it down; None for all else.

    Such a catalog works inside this process. It writes the new metadata file before it touches its database, and a
    database that is full has written less than a whole transaction.
    """
    if not any(kind.__module__ == "pyiceberg.catalog.sql" for kind in type(catalog).__mro__):
        return None
    if _is_database_full(error):
        return WriteFailureError(
            f"The commit to {table} could not be written: the disk of its catalog's database is full."
        )
    if isinstance(error, OSError) and not _is_remote(error):
        return _unwritten(error, table, location)
    return None


def _unwritten(error: OSError, table: str, location: str) -> WriteFailureError:
    place = f" at {location}/metadata" if location else ""
    # Some libraries' texts are a chain of details.
    reason = os.strerror(error.errno) if error.errno else short(error)
    return WriteFailureError(f"The commit to {table} could not be written{place}: {reason}.")


def _is_database_full(error: BaseException) -> bool:
    return _sqlite_code(error) & _PRIMARY_CODE == sqlite3.SQLITE_FULL


def _sqlite_code(error: BaseException) -> int:
    """SQLite's code of an error of a catalog's database; 0 where it is none of SQLite's."""
    return int(getattr(getattr(error, "orig", None), "sqlite_errorcode", 0))


def committing(error: BaseException, table: str) -> AutoloaderError | None:
    """What became of a commit that was sent. A plain conflict passes through, for it is tried again.

    So does one that pyiceberg finds by itself before it sends. Only they and a refusal by the guard say that nothing
    was changed; after any other error the commit may be in the table.
    """
    if isinstance(error, Refused):
        return error.error
    if isinstance(error, (CommitFailedException, TableAlreadyExistsError, ValidationException)):
        return None
    return CommitUnknownError(
        f"The catalog did not say whether it applied the commit to {table} ({type(error).__name__}: {short(error)})."
    )


def _connection(error: BaseException, subject: str) -> AutoloaderError | None:
    if _is_database_full(error):
        return WriteFailureError(f"{subject} could not be written: the disk of its database is full.")
    if isinstance(error, _AUTH_ERRORS) or (isinstance(error, OSError) and _DENIED.search(str(error))):
        return CatalogAuthError(f"{subject} refuses our credentials: {short(error)}.")
    if _sqlite_code(error):
        return CatalogUnreachableError(
            f"{subject} cannot be used: {short(error)}.",
            remedy="Check the file of the catalog, its permissions and the space on its disk, then run again.",
        )
    if isinstance(error, (OSError, RESTError)) or _is_remote(error):
        return CatalogUnreachableError(f"{subject} does not answer: {short(error)}.")
    return None


def _is_remote(error: BaseException) -> bool:
    """Whether it comes from a driver of one of pyiceberg's catalogs.

    The drivers are told by their package, because most of them are not installed and none is ours to import.
    """
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(packages & {"sqlalchemy", "botocore", "thrift", "requests", "urllib3", "tenacity"})


def short(error: BaseException) -> str:
    """The error's first line, cut, without a closing full stop, passwords of URLs, tokens and signatures."""
    lines = str(error).strip().splitlines()
    text = _URL_PASSWORD.sub(r"\1:***@", lines[0] if lines else type(error).__name__)
    text = _SIGNING.sub(r"\1***", _IN_FORM.sub(r"\1***", text))
    return (text[:_LONGEST] + "…" if len(text) > _LONGEST else text).rstrip(".")


def is_secret(name: str) -> bool:
    """Whether a property of that name holds something that is not to be shown."""
    return bool(_SECRET_NAME.search(name))


def redacted(text: str, properties: Mapping[str, str]) -> str:
    """`text` without any value of a secret property."""
    secrets = {part for n, v in properties.items() if is_secret(n) for part in (str(v), *str(v).split(":"))}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
