"""Which methods an address has: for the answer to others, and where a name stands in the place of an id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


class Methods:
    """The methods of every address."""

    def __init__(self, paths: Mapping[str, Iterable[str]]) -> None:
        """Take note of them.

        Args:
            paths: Path, with its parameters in braces, to the names of its methods in any case.
        """
        # What has a name of its own comes before what has an id in its place.
        ordered = sorted(paths.items(), key=lambda item: item[0].count("{"))
        self._paths = [
            (re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), _with_head(names)) for path, names in ordered
        ]

    def of(self, path: str) -> frozenset[str]:
        """Those of an address; none where there is nothing."""
        return next((names for pattern, names in self._paths if pattern.fullmatch(path)), frozenset())


def _with_head(names: Iterable[str]) -> frozenset[str]:
    known = frozenset(name.upper() for name in names)
    return known | {"HEAD"} if "GET" in known else known
