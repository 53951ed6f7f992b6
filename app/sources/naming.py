"""A place whose name may be meant as a pattern or as it is written."""

from __future__ import annotations

from dataclasses import replace

from app.domain.errors import InvalidFieldError
from app.domain.locations import Location
from app.domain.patterns import Pattern


def literally(location: Location) -> Location:
    """The place of which the whole path is the name."""
    return replace(location, path=location.literal, pattern=None)


def only(pattern: str, wanted: Pattern | None) -> Pattern:
    """The pattern of the path, where none was given beside it.

    Raises:
        InvalidFieldError: One was.
    """
    if wanted is not None:
        raise InvalidFieldError(
            "source.path has a pattern already, and source.file_pattern is given too.", remedy="Give one of the two."
        )
    return Pattern(pattern)
