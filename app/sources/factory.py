"""Open the source that a definition names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from app.domain import patterns
from app.domain.errors import InvalidFieldError
from app.domain.locations import Location, parse_location
from app.domain.patterns import Pattern
from app.domain.watching import Lookout
from app.sources.local import AT_ONCE, LocalSource
from app.sources.naming import literally, only
from app.sources.settling import Moment
from app.sources.walk import real_path

if TYPE_CHECKING:
    from app.domain.reach import Reach
    from app.sources.object_store import ObjectStoreSource


def open_source(
    path: str,
    *,
    file_pattern: str | None,
    credentials: Mapping[str, str] | None,
    environ: Mapping[str, str],
    cwd: str | None = None,
    complete_when: str | None = None,
    moment: Moment = AT_ONCE,
    reach: Reach | None = None,
) -> LocalSource | ObjectStoreSource:
    """The source at `path`; a name with glob characters that exists is taken as it is written.

    Args:
        path: A URI, folder, file or pattern.
        file_pattern: What to look for below a folder.
        credentials: The fields of `source.credentials`; None or empty: the default chain.
        environ: The environment that keys, region and endpoint may come from.
        cwd: The folder that a relative path starts from; None: the one this process is in.
        complete_when: The name of the file that tells that its folder is complete; None: no folder has one.
        moment: How long a local file must stand still before it is taken.
        reach: What may be read; None: whatever this process can.

    Raises:
        InvalidFieldError, NotSupportedError: A field is of no use.
        SourceNotAllowedError: It may not be read.
        BucketNotFoundError, SourceAuthError, SourceUnreachableError: The store was asked whether a name that looks
            like a pattern exists, and did not say.
    """
    if complete_when is not None and (complete_when in {"", ".", ".."} or "/" in complete_when):
        raise InvalidFieldError(f"source.complete_when = {complete_when!r} is no name of a file.")
    location = parse_location(path, cwd=cwd or os.getcwd())  # noqa: PTH109
    wanted = patterns.file_pattern(file_pattern) if file_pattern is not None else None
    if location.scheme == "file":
        if credentials:
            raise InvalidFieldError("source.credentials has no use for local files.")
        return _local(location, wanted, moment, complete_when, reach)
    # Imported with the first store: most of what starts has local files or nothing new, and need not wait for it.
    from app.sources.stores import open_store  # noqa: PLC0415

    return open_store(location, credentials, environ, wanted, complete_when, reach=reach)


def check_reach(path: str, credentials: Mapping[str, str], reach: Reach) -> None:
    """Let a source through that may be read, as far as that can be told without a look at it.

    It is held by whoever opens the source, however often this was asked before.

    Raises:
        SourceNotAllowedError: It may not.
        InvalidFieldError: What it needs for that is missing.
        SourceUnreachableError: Its endpoint's name cannot be resolved now.
    """
    location = parse_location(path, cwd=os.getcwd())  # noqa: PTH109
    if location.scheme == "file":
        _local(location, None, AT_ONCE, None, reach)
        return
    from app.sources.gates import gate_of  # noqa: PLC0415  # as above

    gate_of(location.scheme, credentials, reach)


def open_lookout(source: LocalSource | ObjectStoreSource, note: Callable[[str], None]) -> Lookout:
    """The lookout that fits a source.

    Args:
        source: Where to look.
        note: Told why a folder is polled that one would expect to be watched.
    """
    from app.sources.folder_watch import FolderWatch  # noqa: PLC0415  # only a watch has use for these
    from app.sources.polling import Polling, StoreWatch  # noqa: PLC0415

    if not isinstance(source, LocalSource):
        return StoreWatch(source)
    return Polling(source) if os.path.isfile(source.path) else FolderWatch(source, note)  # noqa: PTH113  # bytes


def _local(
    location: Location, wanted: Pattern | None, moment: Moment, complete_when: str | None, reach: Reach | None
) -> LocalSource:
    bounds = None
    if reach is not None:
        from app.sources.bounds import Bounds  # noqa: PLC0415  # only the service has them

        bounds = Bounds(reach)
        # Before anything is asked of the system that tells whether there is something.
        bounds.check(real_path(os.fsencode(location.path)) or b"", os.fsencode(location.path))
    literal = literally(location)
    if location.pattern is None or os.path.lexists(os.fsencode(literal.path)):
        return LocalSource(literal, wanted, moment=moment, complete_when=complete_when, bounds=bounds)
    pattern = only(location.pattern, wanted)
    return LocalSource(location, pattern, moment=moment, complete_when=complete_when, bounds=bounds)
