"""Where files are: what a user writes for a source, and the form of a file's key. Pure."""

from __future__ import annotations

import enum
import os
import posixpath
import re
from dataclasses import dataclass
from typing import Literal

from app.domain.errors import InvalidFieldError, NotSupportedError
from app.domain.patterns import EVERYTHING, Pattern, has_magic

FILE = "file://"
StoreScheme = Literal["s3", "az", "gs"]
# What a user may write → the scheme of the keys.
_STORES: dict[str, StoreScheme] = {"s3": "s3", "az": "az", "abfs": "az", "abfss": "az", "gs": "gs", "gcs": "gs"}
_TYPES = {"s3": "s3", "az": "azure_blob", "gs": "gcs"}
_EXAMPLES = {"s3": "s3://bucket/folder/", "az": "az://container/folder/", "gs": "gs://bucket/folder/"}
_NOUNS = {"s3": "bucket", "az": "container", "gs": "bucket"}
_ADVICE = "Use s3://bucket/…, az://container/…, gs://bucket/…, or the path of a folder or file."
_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.core\.windows\.net")
_OBJECT_KEY = re.compile(r"(?:s3|az|gs)://")
_BUCKET = re.compile(r"[A-Za-z0-9_.$-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BYTE = re.compile(r"\\(\\|x[0-9a-f]{2})")


class SourceType(enum.StrEnum):
    """What a source is, as definitions have it in `source.type`."""

    LOCAL = "local"
    S3 = "s3"
    AZURE_BLOB = "azure_blob"
    GCS = "gcs"


@dataclass(frozen=True, slots=True)
class Location:
    """A place that a user named.

    `path` is an object's key (no leading "/") or an absolute path (files; bytes that are not UTF-8 as surrogates, as
    Python's `os.fsdecode` gives them). `pattern` is what follows from the first component on that has a glob
    character; None where there is none. Whether a name that looks like a pattern exists as it is written, only the
    store can tell: `literal` is that name. A trailing "/" of the path is kept: it says that a folder is meant.
    `bucket` is what Azure calls a container; `account` is the storage account, where the address names one.
    """

    scheme: Literal["file"] | StoreScheme
    bucket: str
    path: str
    pattern: str | None = None
    account: str | None = None

    @property
    def literal(self) -> str:
        """The whole path as it was written, the pattern's characters taken as they are."""
        if self.pattern is None:
            return self.path
        return f"{self.path.rstrip('/')}/{self.pattern}" if self.path else self.pattern


def parse_location(text: str, *, cwd: str) -> Location:
    """Understand what a user writes for a source: a URI, a folder, a file or a pattern.

    A `file://` URI has the form of a key; a path without a scheme is taken as it is.

    Args:
        text: Such as `s3://bucket/events/**/*.json.gz`, `./landing/`, `data/*.csv`.
        cwd: The folder that a relative path starts from.

    Raises:
        NotSupportedError: The scheme is one that cannot be read yet.
        InvalidFieldError: It is no location.
    """
    if not text or "\0" in text:
        raise InvalidFieldError("The source's path is empty or holds a NUL character.")
    found = _SCHEME.match(text)
    if found is None:
        return _file_location(text, cwd)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in _STORES:
        return _store_location(scheme, rest, text)
    if scheme == "file":
        if not rest.startswith("/"):
            raise InvalidFieldError(
                f"{text!r} names another machine.", remedy="Write file:/// and then the absolute path."
            )
        return _file_location(os.fsdecode(path_of_key(FILE + rest)), cwd)
    if scheme == "sftp":
        raise NotSupportedError("sftp:// cannot be read yet.", remedy=_ADVICE)
    if scheme in {"http", "https"}:
        # Without the address: one of a store may hold a signature.
        raise NotSupportedError(f"{scheme}:// addresses cannot be read.", remedy=_ADVICE)
    raise InvalidFieldError(f"{scheme}:// is no scheme of a source.", remedy=_ADVICE)


def _store_location(written: str, rest: str, text: str) -> Location:
    scheme = _STORES[written]
    bucket, _, key = rest.partition("/")
    account = None
    if written in {"abfs", "abfss"} and "@" in bucket:
        bucket, _, host = bucket.partition("@")
        account = _account(host)
    if set("@:") & set(bucket):
        # Whatever stands before the sign may be a key: it is not repeated.
        raise InvalidFieldError(
            f"The name of a {_NOUNS[scheme]} has no '@' and no ':'; keys are never part of an address.",
            remedy="Give keys and the endpoint by the environment or --credentials.",
        )
    # It becomes a part of the host's name, which must not end there.
    if not _BUCKET.fullmatch(bucket):
        raise InvalidFieldError(f"{text!r} names no {_NOUNS[scheme]}.", remedy=f"Write {_EXAMPLES[scheme]}.")
    path, pattern = _split(key)
    return Location(scheme, bucket, path, pattern, account)


def _account(host: str) -> str:
    """The storage account that a host belongs to.

    Raises:
        NotSupportedError: It is none of Azure's public cloud.
    """
    found = _AZURE_HOST.fullmatch(host.lower())
    if found is None:
        raise NotSupportedError(
            "What stands behind the '@' is no host ACCOUNT.dfs.core.windows.net.",
            remedy="Write az://container/…, and give account_name and endpoint_url.",
        )
    return found[1]


def source_type(text: str) -> str:
    """The `source.type` of what a user wrote, or of a key: s3, azure_blob, gcs; local for all else."""
    found = _SCHEME.match(text)
    return _TYPES[_STORES[found[1].lower()]] if found and found[1].lower() in _STORES else "local"


def _file_location(text: str, cwd: str) -> Location:
    path, pattern = _split(text)
    # The folder the process is in may itself have glob characters in its name: only what was written is a pattern.
    folder = posixpath.normpath(posixpath.join(cwd, path))
    is_folder = path.endswith("/") and folder != "/"
    return Location("file", "", f"{folder}/" if is_folder else folder, pattern)


def _split(path: str) -> tuple[str, str | None]:
    """The folders before the first component with a glob character, and the rest."""
    components = path.split("/")
    for at, component in enumerate(components):
        if has_magic(component):
            return "/".join(components[:at]) + ("/" if at else ""), "/".join(components[at:])
    return path, None


# --- keys -------------------------------------------------------------------------------------------------------


def file_key(path: bytes) -> str:
    r"""The key of a local file: `file://` and its absolute real path.

    UTF-8 text stays as it is, a byte that is not UTF-8 becomes `\xNN`, a backslash is doubled: no two paths share a
    key, and `path_of_key` gives the path back.
    """
    return FILE + escaped(path)


def escaped(path: bytes) -> str:
    r"""A path or name in the form that keys have."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_of_key(key: str) -> bytes:
    """The path of a local file whose key this is.

    Raises:
        ValueError: It is no key of a local file.
    """
    if not key.startswith(FILE):
        raise ValueError(f"{key!r} is no key of a local file.")
    return unescaped(key.removeprefix(FILE))


def unescaped(text: str) -> bytes:
    """The path or name that has this form in keys."""
    if "\\" not in text:
        return text.encode("utf-8", "surrogateescape")
    parts, at = [], 0
    for found in _BYTE.finditer(text):
        parts.append(text[at : found.start()].encode("utf-8", "surrogateescape"))
        parts.append(b"\\" if found[1] == "\\" else bytes.fromhex(found[1][1:]))
        at = found.end()
    parts.append(text[at:].encode("utf-8", "surrogateescape"))
    return b"".join(parts)


def object_key(scheme: StoreScheme, bucket: str, key: str) -> str:
    """The key of an object: its URI, a backslash doubled as in the keys of local files."""
    return f"{scheme}://{bucket}/{key}".replace("\\", "\\\\")


def object_of_key(key: str) -> tuple[str, str]:
    """The bucket and the object's own key.

    Raises:
        ValueError: It is no key of an object.
    """
    found = _OBJECT_KEY.match(key)
    if found is None:
        raise ValueError(f"{key!r} is no key of an object.")
    bucket, _, name = key[found.end() :].replace("\\\\", "\\").partition("/")
    return bucket, name


def contains(root: str, other: str) -> bool:
    """Whether `other` is `root` or lies inside it; both in the form of keys."""
    folder = root.rstrip("/")
    return other.rstrip("/") == folder or other.startswith(f"{folder}/")


def can_find_below(root: str, pattern: Pattern | None, folder: str) -> bool:
    """Whether a source could find a file inside `folder`: what must not be when the table itself is there.

    Args:
        root: The source's root, in the form of a key.
        pattern: What it looks for below the root; None for everything that is not hidden.
        folder: The folder in question, in the form of a key.
    """
    if contains(root, folder):
        below = folder.rstrip("/")[len(root.rstrip("/")) :]
        return (pattern or EVERYTHING).can_match_below(below)
    return contains(folder, root)
