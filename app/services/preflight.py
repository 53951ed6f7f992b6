"""Look before anything is made: does the source exist, what are its files, is it the product's own output?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from app.domain.definition import Definition, OnFileChange, format_options
from app.domain.errors import InvalidFieldError, MixedFormatsError, SourceContainsWarehouseError, UsageError
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, format_by_name, is_tab_separated
from app.domain.locations import source_type
from app.domain.ports import Source
from app.domain.table import TableName

# So many files are looked at before the first batch is planned.
PEEK_FILES = 10_000


@dataclass(frozen=True)
class LoadRequest:
    """What to load where. `values` are the definition's fields by name; what is missing has its default."""

    path: str
    table: TableName
    values: Mapping[str, Any]
    credentials: Mapping[str, str] | None = None
    retry_failed: bool = False
    wait_s: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A source that is there, with its listing begun."""

    source: Source
    # The whole listing, what was looked at included; None of it is read twice.
    listing: Iterator[SourceFile]
    definition: Definition
    # False where the format was given, and no name needs to tell it.
    by_name: bool
    # The first files of the listing.
    first: Sequence[SourceFile]

    def landed_after(self, moment: datetime) -> list[SourceFile]:
        """Those of the first files that hold something and came, or changed, after the moment."""
        return [file for file in self.first if file.size_bytes and file.modified_at > moment]


# Opens a source: path, file pattern, credentials.
OpenSource = Callable[[str, str | None, Mapping[str, str] | None], Source]


def prepare(request: LoadRequest, open_source: OpenSource, keep_out: Sequence[str]) -> Prepared:
    """Open the source and begin its listing.

    Args:
        request: What was asked for.
        open_source: Opens it.
        keep_out: Folders of ours, in the form of keys, that no source may find files in.

    Raises:
        SourceContainsWarehouseError: The source could find files in one of them.
        InvalidFieldError: The path names a source of another type than the one given, or rows are to be replaced
            that do not name their file.
        MixedFormatsError: Its files are of several formats.
        UsageError: Its files' names do not tell their format, and none was given.
        SourceNotFoundError, BucketNotFoundError, SourceAuthError, SourceUnreachableError: As `Source.discover`.
    """
    on_file_change = OnFileChange(request.values.get("on_file_change", OnFileChange.IGNORE))
    provenance = request.values.get("provenance", True)
    if on_file_change is OnFileChange.REPLACE and not provenance:
        raise InvalidFieldError(
            "source.on_file_change = replace needs destination.provenance: without it no row says which file it is "
            "from, so that the rows of an earlier version cannot be found.",
            remedy="Leave out --no-provenance, or use ignore or append.",
        )
    pattern = request.values.get("file_pattern")
    source = open_source(request.path, pattern, request.credentials)
    _check_type(request.values.get("source_type"), source)
    for folder in keep_out:
        if source.can_find_below(folder):
            raise SourceContainsWarehouseError(f"The source {request.path} contains {folder}, where we write.")
    listing = source.discover()
    peeked = list(islice(listing, PEEK_FILES))
    given = request.values.get("format")
    file_format = FileFormat(given) if given else format_of(peeked, request.path)
    tabs = bool(peeked) and all(is_tab_separated(f.key) for f in peeked)
    options = format_options(request.values, file_format, tab_separated=tabs)
    return Prepared(
        source=source,
        listing=chain(peeked, listing),
        definition=Definition(_absolute(request.path), pattern, options, provenance, on_file_change),
        by_name=not given,
        first=peeked,
    )


def _absolute(path: str) -> str:
    """The path as any process may use it later, wherever it was started: a batch may be settled from another folder."""
    if "://" in path:
        return path
    return path if path.startswith("/") else f"{Path.cwd()}/{path}"


def _check_type(given: str | None, source: Source) -> None:
    found = source_type(source.root)
    if given not in (None, found):
        raise InvalidFieldError(f"source.type is {given}, and the path names a source of type {found}.")


def format_of(files: Sequence[SourceFile], path: str) -> FileFormat:
    """The one format that the files' names tell; JSON where there is no file.

    Raises:
        MixedFormatsError: They tell several.
        UsageError: Some tell none.
    """
    found: dict[FileFormat | None, str] = {}
    for file in files:
        # An empty file has no format; it is skipped.
        if file.size_bytes:
            found.setdefault(format_by_name(file.key), file.key)
    if None in found and len(found) == 1:
        raise UsageError(
            f"The names of the files in {path} do not tell their format, such as {found[None]}.",
            remedy="Give it: --format json, csv or parquet.",
        )
    if len(found) > 1:
        shown = ", ".join(f"{kind.value if kind else 'unknown'} ({key})" for kind, key in found.items())
        raise MixedFormatsError(
            f"The source {path} mixes formats: {shown}. Nothing was loaded.",
            remedy="Choose with --file-pattern, such as '*.json', or give --format when all files are of one.",
        )
    return next((kind for kind in found if kind), FileFormat.JSON)


def check_format(file: SourceFile, definition: Definition) -> None:
    """Refuse a file, far down a listing, whose name tells another format than the first ones.

    Raises:
        MixedFormatsError: It does.
    """
    if format_by_name(file.key) is not definition.options.format:
        raise MixedFormatsError(
            f"The source {definition.path} mixes formats: {definition.options.format.value} and {file.key}.",
            remedy="Choose with --file-pattern, such as '*.json'. What was committed before stays.",
        )
