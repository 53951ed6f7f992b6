"""The table by which text of any script is written in ASCII, read by whoever has such text."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

MODULE = "text_unidecode"


def defer_transliteration() -> None:
    """Have the library for it read its table with the first text that is no ASCII. Again: no change.

    Prefect's library makes slugs of the names of its own classes when it is imported. They are ASCII, which stays as it
    is, and the table takes four megabytes of every process that speaks with Prefect. To be called before the library is
    imported.
    """
    if MODULE not in sys.modules:
        deferred = ModuleType(MODULE)
        deferred.unidecode = _unidecode  # type: ignore[attr-defined]  # what there is of the library
        sys.modules[MODULE] = deferred


def _unidecode(text: str) -> str:
    if text.isascii():
        return text
    if getattr(sys.modules.get(MODULE), "unidecode", None) is _unidecode:
        sys.modules.pop(MODULE, None)
    written: str = import_module(MODULE).unidecode(text)
    return written
