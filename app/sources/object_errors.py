"""What the store's library reports, in our words. Its own texts are never shown: they quote requests and answers."""

from __future__ import annotations

import re

from obstore.exceptions import InvalidPathError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    Category,
    FileError,
    InvalidFieldError,
    NotSupportedError,
    SourceAuthError,
    SourceUnreachableError,
)
from app.domain.files import SourceFile
from app.sources.access import MISDIRECTED, Dialect

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_KEY = re.compile(r'Path "([^"]*)"')
_DENIED_STATUS = {"401", "403"}
_REDIRECT = "redirect without location"
_NETWORK = (
    ("connection refused", "the connection is refused"),
    ("dns error", "its name cannot be resolved"),
    ("timed out", "it does not answer in time"),
    ("timedout", "it does not answer in time"),
    ("connection reset", "the connection breaks off"),
    ("certificate", "its certificate is not trusted"),
    ("invalid list response", "its answer is no listing"),
)
# What the library says when it cannot come by a token, or cannot use the key that it was given.
_NO_KEY = (
    "error getting credentials",
    "missingcredentials",
    "security-credentials",
    "latest/meta-data",
    "latest/api/token",
    "performing token request",
    "federated token file",
    "credential error",
    "reading pem file",
    "invalid rsa key",
)


def discovery_error(error: Exception, words: Dialect, bucket: str) -> AutoloaderError:
    """Our error for what went wrong while a bucket was listed."""
    text = str(error)
    code, status = _said(text)
    if isinstance(error, InvalidPathError) or "could not parse path" in text.lower():
        return _invalid_key(text, f"{words.bucket} {bucket!r}")
    if code in words.missing_bucket:
        return BucketNotFoundError(f"There is no {words.bucket} {bucket!r}.")
    if _names_another_region(text, words, code):
        return InvalidFieldError(
            f"The bucket {bucket!r} is in another region than the one configured.",
            remedy="Set aws_region or AWS_REGION to the bucket's region.",
        )
    if _is_denied(error, words, code, status):
        return SourceAuthError(
            f"The store refuses the key for the {words.bucket} {bucket!r} ({code or status or 'no access'})."
        )
    if _lacks_key(text):
        return SourceAuthError(
            f"No key for the {words.bucket} {bucket!r} can be found or used.", remedy=words.key_remedy
        )
    return SourceUnreachableError(
        f"The store of the {words.bucket} {bucket!r} cannot be used: {_reason(text, code, status)}."
    )


def file_error(error: Exception, words: Dialect, file: SourceFile) -> FileError:
    """Our error for what went wrong while an object was read."""
    text = str(error)
    code, status = _said(text)
    # A range beyond the end means that the object is shorter than it was.
    if isinstance(error, (FileNotFoundError, PreconditionError)) or code == "InvalidRange" or status == "416":
        return changed(file)
    # A token service that is away for a while says nothing against the key, which was good enough for the listing.
    no_key = _lacks_key(text) and (status.startswith("4") or not _is_network(text, status))
    if _is_denied(error, words, code, status) or no_key:
        return FileError(Category.AUTH, f"The store refuses to give {file.key} ({code or status or 'no access'}).")
    return FileError(Category.CONNECTIVITY, f"{file.key} cannot be read: {_reason(text, code, status)}.")


def changed(file: SourceFile) -> FileError:
    """The error for an object that is not there any more in the version that was listed."""
    return FileError(
        Category.PATH_NOT_FOUND,
        f"{file.key} was changed or is gone since it was listed; the next run takes up what is there then.",
    )


def _said(text: str) -> tuple[str, str]:
    code, status = _CODE.search(text), _STATUS.search(text)
    return code[1] if code else "", status[1] if status else ""


def _is_denied(error: Exception, words: Dialect, code: str, status: str) -> bool:
    named = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
    return named or code in words.denied or status in _DENIED_STATUS


def _lacks_key(text: str) -> bool:
    return any(sign in text.lower() for sign in _NO_KEY)


def _is_network(text: str, status: str) -> bool:
    return status.startswith("5") or any(sign in text.lower() for sign, _ in _NETWORK)


def _names_another_region(text: str, words: Dialect, code: str) -> bool:
    return bool(words.another_region) and (code in words.another_region or _REDIRECT in text.lower())


def _invalid_key(text: str, where: str) -> AutoloaderError:
    found = _KEY.search(text)
    return NotSupportedError(
        f"The {where} has the key {found[1] if found else '?'!r}: keys with empty folder names, with the "
        "names . or .., or with control characters cannot be read.",
        remedy="Rename the object, or give a path that does not contain it.",
    )


def _reason(text: str, code: str, status: str) -> str:
    if status == str(MISDIRECTED):
        return "it sends us on to another address, where we do not go"
    if code or status:
        return f"it answers {' '.join(part for part in (status, code) if part)}"
    lowered = text.lower()
    return next((reason for sign, reason in _NETWORK if sign in lowered), "the connection fails")
