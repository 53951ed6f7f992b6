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

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_KEY = re.compile(r'Path "([^"]*)"')
_DENIED_STATUS = {"401", "403"}
_DENIED_CODES = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
_NETWORK = (
    ("connection refused", "the connection is refused"),
    ("dns error", "its name cannot be resolved"),
    ("timed out", "it does not answer in time"),
    ("timedout", "it does not answer in time"),
    ("connection reset", "the connection breaks off"),
    ("certificate", "its certificate is not trusted"),
)
_NO_KEY = ("security-credentials", "metadata/", "error getting credentials", "missingcredentials", "api/token")


def discovery_error(error: Exception, bucket: str) -> AutoloaderError:
    """Our error for what went wrong while a bucket was listed."""
    text = str(error)
    code, status = _said(text)
    if isinstance(error, InvalidPathError) or "could not parse path" in text.lower():
        return _invalid_key(text, bucket)
    if code == "NoSuchBucket":
        return BucketNotFoundError(f"There is no bucket {bucket!r}.")
    if _names_another_region(text, code):
        return InvalidFieldError(
            f"The bucket {bucket!r} is in another region than the one configured.",
            remedy="Set aws_region or AWS_REGION to the bucket's region.",
        )
    if _is_denied(error, code, status):
        return SourceAuthError(
            f"The store refuses the key for the bucket {bucket!r} ({code or status or 'no access'})."
        )
    if any(sign in text.lower() for sign in _NO_KEY):
        return SourceAuthError(
            f"No key for the bucket {bucket!r} can be found.",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give --credentials FILE.",
        )
    return SourceUnreachableError(f"The store of the bucket {bucket!r} cannot be used: {_reason(text, code, status)}.")


def file_error(error: Exception, file: SourceFile) -> FileError:
    """Our error for what went wrong while an object was read."""
    text = str(error)
    code, status = _said(text)
    # A range beyond the end means that the object is shorter than it was.
    if isinstance(error, (FileNotFoundError, PreconditionError)) or code == "InvalidRange" or status == "416":
        return changed(file)
    if _is_denied(error, code, status) or any(sign in text.lower() for sign in _NO_KEY):
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


def _is_denied(error: Exception, code: str, status: str) -> bool:
    named = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
    return named or code in _DENIED_CODES or status in _DENIED_STATUS


def _names_another_region(text: str, code: str) -> bool:
    return code in _WRONG_REGION or "redirect without location" in text.lower()


def _invalid_key(text: str, bucket: str) -> AutoloaderError:
    found = _KEY.search(text)
    return NotSupportedError(
        f"The bucket {bucket!r} has the key {found[1] if found else '?'!r}: keys with empty folder names, with the "
        "names . or .., or with control characters cannot be read.",
        remedy="Rename the object, or give a path that does not contain it.",
    )


def _reason(text: str, code: str, status: str) -> str:
    if code or status:
        return f"it answers {' '.join(part for part in (status, code) if part)}"
    lowered = text.lower()
    return next((reason for sign, reason in _NETWORK if sign in lowered), "the connection fails")
