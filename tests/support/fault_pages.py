"""The tables of the page `reference/faults.md`, made from what the tests hold the product to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.support.fault_table import (
    CATALOG_FAULTS,
    COMMIT_FAULTS,
    NOTHING,
    SOURCE_FAULTS,
    STORAGE_FAULTS,
    SUCCESS,
    CommitFault,
)

TAKEN = {
    "unknown": "unknown: the batch is looked up",
    "conflict": "conflict: own snapshot looked for",
    NOTHING: "a token that ran out: sent again",
}
ASSUMED = {
    SUCCESS: "away for a moment",
    "connectivity": "away for now",
    "path_not_found": "changed or gone",
    "auth": "the key is not good for it",
    "data_malformed": "the file is broken",
    "write_failure": "nothing was written",
}


def sections() -> Mapping[str, list[str]]:
    """The lines of each table, by the heading that it stands under."""
    return {
        "## Commits": _table(
            ("the catalog …", "exception", "taken for", "it was applied", "it was not"),
            ((f.words, _seen(f), TAKEN[f.taken], _code(SUCCESS), _lost(f)) for f in COMMIT_FAULTS),
        ),
        "## Other requests to a REST catalog": _table(
            ("request", "the catalog …", "how often", "exception", "the run ends"),
            ((f.request, f.words, _often(f.times), _code(f.seen), _code(f.ends)) for f in CATALOG_FAULTS),
        ),
        "## A store as the source": _table(
            ("request", "the store …", "how often", "exception", "taken for", "the run or the file ends"),
            (
                (f.request, f.words, _often(f.times), _source_exception(f.request, f.ends),
                 _source_taken(f.words, f.ends), _code(f.ends))
                for f in SOURCE_FAULTS
            ),
        ),
        "## A store as the table's place": _table(
            ("request", "the store …", "how often", "exception", "taken for", "the run ends"),
            (
                (f.request, f.words, _often(f.times), NOTHING if f.ends == SUCCESS else "`OSError`", ASSUMED[f.ends],
                 _code(f.ends))
                for f in STORAGE_FAULTS
            ),
        ),
    }  # fmt: skip


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [_line(heads), "|" + "---|" * len(heads), *(_line(row) for row in rows)]


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _code(text: str) -> str:
    return text if text == NOTHING else f"`{text}`"


def _often(times: int | None) -> str:
    return {None: "for ever", 1: "once", 2: "twice"}[times]


def _seen(fault: CommitFault) -> str:
    if fault.seen_lost == NOTHING:
        return f"{_code(fault.seen)}; none where it was not applied"
    return _code(fault.seen)


def _lost(fault: CommitFault) -> str:
    if fault.seen_lost is None:
        return NOTHING
    if fault.first_lost != fault.later_lost:
        return f"{_code(fault.later_lost)}; {_code(fault.first_lost)} for a new table"
    return _code(fault.later_lost)


def _source_exception(request: str, ends: str) -> str:
    if ends == SUCCESS or (request != "GET" and ends == "path_not_found"):
        return NOTHING
    return "`FileError`" if request == "GET" else "`GenericError`"


def _source_taken(words: str, ends: str) -> str:
    return "an end that is not believed" if words == "answers 200 with an error" else ASSUMED[ends]
