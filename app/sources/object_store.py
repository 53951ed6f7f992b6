"""An object store as a source, through obstore: a listing page by page, and reads that name the version they want."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from app.domain.errors import SourceNotFoundError, SourceUnreachableError
from app.domain.files import SourceFile
from app.domain.locations import Location, can_find_below, object_key, object_of_key
from app.domain.patterns import EVERYTHING, Pattern
from app.sources.access import StoreAccess
from app.sources.object_errors import discovery_error
from app.sources.object_reader import ObjectReader, version_of

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore import GetResult, ObjectMeta
    from obstore.store import ObjectStore

PAGE_KEYS = 1_000
LISTS_FROM_A_KEY = {"s3", "gs"}
# Such a bucket of Amazon's lists in no order, and from no key.
DIRECTORY_BUCKET = "--x-s3"
FOLDER_MARK = "hdi_isfolder"
# No object has this name.
PROBE = ".autoloader-is-this-a-store"


class ObjectStoreSource:
    """A bucket, a folder of it, or one object."""

    def __init__(
        self,
        location: Location,
        access: StoreAccess,
        pattern: Pattern | None = None,
        *,
        complete_when: str | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            location: Where to look. Whether its path is a folder or an object, and whether a name that looks like a
                pattern exists as it is written, the first listing finds out.
            access: Opens the bucket, with its key.
            pattern: What to look for below the path; None: everything that is not hidden.
            complete_when: The name of the object that tells that its folder is complete.
        """
        self.marker = complete_when
        self._location = location
        self._access = access
        self._pattern = pattern
        self._store: ObjectStore | None = None

    @property
    def root(self) -> str:
        """URI of the folder (or object) below which every key lies, in the form of a key."""
        return self._key(self._location.path).rstrip("/")

    def discover(self) -> Iterator[SourceFile]:
        """Yield the matching objects in the order of the store's pages; streaming.

        Raises:
            SourceNotFoundError: There is neither an object nor a folder of that name.
            BucketNotFoundError, SourceAuthError, SourceUnreachableError: As the store says.
            NotSupportedError: A key has a form that the library cannot hold, such as an empty folder name.
        """
        try:
            yield from self._discover()
        except (BaseError, OSError, ValueError) as error:
            raise discovery_error(error, self._access.dialect, self._location.bucket) from error

    def discover_after(self, key: str) -> Iterator[SourceFile]:
        """Yield the matching objects behind `key`, which has the form of a key; nothing where there is none.

        Raises:
            BucketNotFoundError, SourceAuthError, SourceUnreachableError: As the store says.
        """
        _, name = object_of_key(key)
        try:
            for page in self._pages(self._start(), after=name):
                # Not every server heeds where to begin.
                behind = [meta for meta in page if meta["path"].encode() > name.encode()]
                yield from self._matching(behind)
        except (BaseError, OSError, ValueError) as error:
            raise discovery_error(error, self._access.dialect, self._location.bucket) from error

    def can_find_below(self, folder: str) -> bool:
        """Whether it could find a file inside `folder`, which has the form of a key."""
        return can_find_below(self.root, self._pattern, folder)

    def reader(self) -> ObjectReader:
        """A reader that holds the read key of this source, and nothing else."""
        return ObjectReader(self._access)

    def exists(self) -> bool:
        """Whether there is an object or a folder at the path as it is written.

        Raises:
            BucketNotFoundError, SourceAuthError, SourceUnreachableError: Nothing is known.
        """
        try:
            return self._is_folder() or self._object() is not None
        except (BaseError, OSError, ValueError) as error:
            raise discovery_error(error, self._access.dialect, self._location.bucket) from error

    def _discover(self) -> Iterator[SourceFile]:
        found = False
        for page in self._pages(self._start()):
            found = True
            yield from self._matching(page)
        if not found and not ((self._pattern or EVERYTHING).fixed_folder and self._is_folder()):
            yield from self._single() if self._location.path.rstrip("/") else self._nothing()

    def _start(self) -> str:
        """The folder that everything that matches lies in."""
        return joined(self._location.path.rstrip("/"), (self._pattern or EVERYTHING).fixed_folder)

    def _matching(self, page: list[ObjectMeta]) -> Iterator[SourceFile]:
        root = self._location.path.rstrip("/")
        pattern = self._pattern or EVERYTHING
        complete = _Complete(self.marker, page, lambda path: self._head(path) is not None)
        for meta in page:
            # The store also lists what only begins with the folder's name when it is a marker of that name.
            below = meta["path"][len(root) + 1 if root else 0 :]
            if below and pattern.matches(below) and complete.has(meta["path"]) and not self._is_marker(meta):
                yield self._file(meta)

    def _single(self) -> Iterator[SourceFile]:
        one = self._object()
        if one is None and self._is_folder():
            return
        if one is None:
            raise SourceNotFoundError(f"There is nothing at {self.root}.")
        complete = _Complete(self.marker, [one], lambda path: self._head(path) is not None)
        matches = self._pattern is None or self._pattern.matches(one["path"].rpartition("/")[2])
        if matches and complete.has(one["path"]):
            yield self._file(one)

    def _nothing(self) -> Iterator[SourceFile]:
        """No file, of a bucket that is empty; but a web server's page is also read as a listing without keys.

        Raises:
            SourceUnreachableError: The server has an object that it did not list.
        """
        if self._head(PROBE) is not None:
            words = self._access.dialect
            raise SourceUnreachableError(
                f"What answers for the {words.bucket} {self._location.bucket!r} is no {words.service}.",
                remedy=words.endpoint_remedy,
            )
        yield from ()

    def _is_folder(self) -> bool:
        path = self._location.path
        return next(self._pages(path), None) is not None or self._is_marked(self._look(path.rstrip("/")))

    def _object(self) -> ObjectMeta | None:
        path = self._location.path
        return None if path.endswith("/") or not path else self._head(path)

    def _head(self, path: str) -> ObjectMeta | None:
        """What there is at `path`; None for nothing, and for what is marked as a folder."""
        looked = self._look(path)
        return None if looked is None or self._is_marked(looked) else looked.meta

    def _look(self, path: str) -> GetResult | None:
        try:
            return obstore.get(self._opened(), path, options={"head": True}) if path else None
        except FileNotFoundError:
            # The answer has no body, so a missing bucket looks the same here; the listing that follows tells.
            return None

    @staticmethod
    def _is_marked(looked: GetResult | None) -> bool:
        """Whether an object is a folder by its metadata, as Azure's own tools and file systems mark one."""
        return looked is not None and FOLDER_MARK in looked.attributes

    def _pages(self, folder: str, *, after: str | None = None) -> Iterator[list[ObjectMeta]]:
        """The listing, page by page, until the store says of its end that nothing comes after it.

        An answer that lost its end, or that is no listing at all, may be read as one without keys or without a next
        page. So what seems to be the end is asked for once more.
        """
        last = after or ""
        for asked in itertools.count(1):
            begun_after, rises = last, True
            for page in self._listed(folder, last):
                rises = rises and _rises(last, page)
                last = page[-1]["path"]
                yield page
            is_end = last == begun_after and (last or asked > 1)
            if is_end or not rises or not self._goes_on_from_a_key():
                return

    def _listed(self, folder: str, after: str) -> Iterator[list[ObjectMeta]]:
        prefix = folder.rstrip("/") or None
        for listed in obstore.list(self._opened(), prefix, offset=after or None, chunk_size=PAGE_KEYS):
            # Not every server heeds from where to go on.
            page = [meta for meta in listed if not after or meta["path"].encode() > after.encode()]
            if page:
                yield page

    def _goes_on_from_a_key(self) -> bool:
        """Whether the store can list from a key on, which for others the library does by listing all again."""
        return self._access.dialect.scheme in LISTS_FROM_A_KEY and not self._location.bucket.endswith(DIRECTORY_BUCKET)

    def _is_marker(self, meta: ObjectMeta) -> bool:
        """Whether an empty object is a folder: marked as one, or with a key that ends in "/", which is not shown."""
        return meta["size"] == 0 and self._head(meta["path"]) is None

    def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = self._access.open(self._location.bucket)
        return self._store

    def _file(self, meta: ObjectMeta) -> SourceFile:
        return SourceFile(self._key(meta["path"]), version_of(meta), meta["size"], meta["last_modified"])

    def _key(self, path: str) -> str:
        return object_key(self._access.dialect.scheme, self._location.bucket, path)


def _rises(last: str, page: list[ObjectMeta]) -> bool:
    """Whether the keys of a page rise, and lie above the last one before it."""
    keys = [last.encode(), *(meta["path"].encode() for meta in page)]
    return all(a < b for a, b in itertools.pairwise(keys))


class _Complete:
    """Which folders of one page hold the marker; asked for by name where the page itself does not show it."""

    def __init__(self, marker: str | None, page: list[ObjectMeta], is_there: Callable[[str], bool]) -> None:
        self._marker = marker
        self._is_there = is_there
        self._folders: dict[str, bool] = {}
        if marker is not None:
            named = (meta["path"].rpartition("/") for meta in page)
            self._folders = {folder: True for folder, _, name in named if name == marker}

    def has(self, path: str) -> bool:
        """Whether the object at `path` is of a complete folder, and not the marker itself."""
        if self._marker is None:
            return True
        folder, _, name = path.rpartition("/")
        if name == self._marker:
            return False
        if folder not in self._folders:
            self._folders[folder] = self._is_there(joined(folder, self._marker))
        return self._folders[folder]


def joined(folder: str, below: str) -> str:
    """The path of `below` in `folder`; either may be empty."""
    return "/".join(part for part in (folder, below) if part)
