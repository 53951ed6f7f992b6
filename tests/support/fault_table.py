"""Every fault of a catalog or a store, and what the product makes of it: held by tests, and shown on a page.

`tests/faults` plays each row against real servers; `tests/docs` holds the page `reference/faults.md` against the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.support.fault_proxy import Action, Answer, Cut, Half, Rewrite

SUCCESS = "success"
NOTHING = "—"
SILENT = "says nothing"
ERROR_XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>Try again.</Message>'
    b"<RequestId>1</RequestId></Error>"
)
WEB_PAGE = b"<html><body>Welcome</body></html>"


# --- commits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CommitFault:
    """An answer to a commit. `make` is told whether the catalog applies the commit first."""

    words: str
    make: Callable[[bool], Action]
    # What pyiceberg raises where the commit was applied, and where it was not; None: this cannot be.
    seen: str
    seen_lost: str | None
    # What the product takes it for: `unknown`, `conflict`, or nothing at all.
    taken: str
    taken_lost: str = ""
    # How the run ends where the commit was not applied, for a new table and for one that is there.
    first_lost: str = SUCCESS
    later_lost: str = SUCCESS


def _cut(how: str) -> Callable[[bool], Action]:
    return partial(Cut, how)


def _status(status: int) -> Callable[[bool], Action]:
    return partial(Answer, status)


def _unknown(words: str, make: Callable[[bool], Action], seen: str) -> CommitFault:
    return CommitFault(words, make, seen, seen, "unknown", "unknown")


def _another_token(status: int) -> CommitFault:
    return CommitFault(f"answers {status}", _status(status), "CommitFailedException", NOTHING, "conflict", NOTHING)


COMMIT_FAULTS = (
    _unknown("ends the connection", _cut("close"), "ConnectionError"),
    _unknown("resets the connection", _cut("reset"), "ConnectionError"),
    _unknown(SILENT, _cut("stall"), "ReadTimeout"),
    CommitFault("sends half an answer", lambda _: Half(), "ChunkedEncodingError", None, "unknown"),
    _unknown("answers 400", _status(400), "BadRequestError"),
    _another_token(401),
    _unknown("answers 404", _status(404), "RESTError"),
    _unknown("answers 408", _status(408), "RESTError"),
    CommitFault(
        "answers 409",
        _status(409),
        "CommitFailedException",
        "CommitFailedException",
        "conflict",
        "conflict",
        first_lost="catalog_refused",
    ),
    _another_token(419),
    _unknown("answers 429", _status(429), "TooManyRequestsError"),
    _unknown("answers 500", _status(500), "CommitStateUnknownException"),
    _unknown("answers 502", _status(502), "CommitStateUnknownException"),
    _unknown("answers 503", _status(503), "ServiceUnavailableError"),
    _unknown("answers 504", _status(504), "CommitStateUnknownException"),
)


# --- other requests to the catalog ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RequestFault:
    """A fault of a request that commits nothing. `times` None: for as long as the load runs."""

    request: str
    words: str
    action: Callable[[], Action]
    seen: str
    ends: str
    times: int | None = 1


# Each kind of request: method and path.
CATALOG_REQUESTS = {
    "token": ("POST", r"^/v1/oauth/tokens"),
    "configuration": ("GET", r"^/v1/config"),
    "table": ("GET", r"/tables/t_\w+$"),
    "namespace": ("GET", r"/namespaces/\w+$"),
    "new namespace": ("POST", r"/namespaces$"),
    "new table": ("POST", r"/tables$"),
}


def _close() -> Action:
    return Cut("close", applied=True)


def _stall() -> Action:
    return Cut("stall", applied=False)


def _refusing(status: int) -> Callable[[], Action]:
    return lambda: Answer(status, applied=False)


def _page() -> Action:
    return Answer(200, applied=False, body=WEB_PAGE, content_type="text/html")


def _half() -> Action:
    return Half()


def _cut_short() -> Action:
    return Rewrite(lambda body: body[: len(body) // 2])


CATALOG_FAULTS = (
    RequestFault("token", "ends the connection", _close, "ConnectionError", "catalog_unreachable"),
    RequestFault("token", SILENT, _stall, "ReadTimeout", "catalog_unreachable"),
    RequestFault("token", "answers 401", _refusing(401), "OAuthError", "catalog_auth"),
    RequestFault("token", "answers 503", _refusing(503), "ServiceUnavailableError", "catalog_unreachable"),
    RequestFault("token", "answers with a web page", _page, "ValidationError", "catalog_unreachable"),
    RequestFault("configuration", "resets the connection", lambda: Cut("reset", applied=True), "ConnectionError",
                 "catalog_unreachable"),
    RequestFault("configuration", SILENT, _stall, "ReadTimeout", "catalog_unreachable"),
    RequestFault("configuration", "answers 403", _refusing(403), "ForbiddenError", "catalog_auth"),
    RequestFault("configuration", "answers 500", _refusing(500), "ServerError", "catalog_unreachable"),
    RequestFault("table", "ends the connection", _close, "ConnectionError", "catalog_unreachable"),
    RequestFault("table", SILENT, _stall, "ReadTimeout", "catalog_unreachable"),
    RequestFault("table", "sends half an answer", _half, "ChunkedEncodingError", "catalog_unreachable"),
    RequestFault("table", "sends half an answer as a whole", _cut_short, "ValidationError", "catalog_unreachable"),
    RequestFault("table", "answers 401", _refusing(401), NOTHING, SUCCESS),
    RequestFault("table", "answers 401", _refusing(401), "UnauthorizedError", "catalog_auth", times=None),
    RequestFault("table", "answers 404", _refusing(404), "NoSuchTableError", SUCCESS),
    RequestFault("table", "answers 404", _refusing(404), "NoSuchTableError", "table_replaced", times=None),
    RequestFault("table", "answers 429", _refusing(429), "TooManyRequestsError", "catalog_unreachable"),
    RequestFault("table", "answers 500", _refusing(500), "ServerError", "catalog_unreachable"),
    RequestFault("table", "answers 503", _refusing(503), "ServiceUnavailableError", "catalog_unreachable"),
    RequestFault("namespace", "answers 503", _refusing(503), "ServiceUnavailableError", SUCCESS),
    RequestFault("new namespace", "ends the connection", _close, "ConnectionError", SUCCESS),
    RequestFault("new namespace", "answers 500, having done it", lambda: Answer(500, applied=True), "ServerError",
                 SUCCESS),
    RequestFault("new namespace", "answers 403", _refusing(403), "ForbiddenError", "catalog_auth"),
    RequestFault("new table", "ends the connection", _close, "ConnectionError", "catalog_unreachable"),
    RequestFault("new table", SILENT, _stall, "ReadTimeout", "catalog_unreachable"),
    RequestFault("new table", "answers 400", _refusing(400), "BadRequestError", "catalog_refused"),
    RequestFault("new table", "answers 409", _refusing(409), "TableAlreadyExistsError", SUCCESS),
    RequestFault("new table", "answers 503", _refusing(503), "ServiceUnavailableError", "catalog_unreachable"),
)  # fmt: skip


# --- an object store as the source ------------------------------------------------------------------------------------


def _error(status: int, code: bytes) -> Callable[[], Action]:
    """The store's own way to say no."""
    return lambda: Answer(status, applied=False, body=ERROR_XML % code, content_type="application/xml")


def _error_as_success() -> Action:
    return Answer(200, applied=False, body=ERROR_XML % b"InternalError", content_type="application/xml")


def _reset_in_mid_body() -> Action:
    return Half("reset")


def _whole_lines() -> Action:
    """A body that ends behind a line, told as the whole: nothing in it shows that more belongs to it."""
    return Rewrite(lambda body: body[: body.index(b"\n", len(body) // 2) + 1])


def _whole_entries() -> Action:
    """A listing that ends behind its first entry."""
    return Rewrite(lambda body: body[: body.index(b"</Contents>") + len(b"</Contents>")])


def _wrong_byte() -> Action:
    return Rewrite(lambda body: b"[" + body[1:])


@dataclass(frozen=True)
class SourceFault:
    """A fault of a source. `times` None: for as long as the load runs.

    `ends` is what stops the run, or the category under which the file of the faulty request fails while the other
    files load; `next_ends` is how the next plain load ends.
    """

    request: str
    words: str
    action: Callable[[], Action]
    ends: str
    times: int | None = None
    next_ends: str = SUCCESS


SOURCE_REQUESTS = {
    "LIST": ("GET", r"\?(?!.*continuation-token).*list-type=2"),
    "LIST, a later page": ("GET", r"[?&]continuation-token="),
    "HEAD": ("HEAD", r"/batch_0\.json$"),
    "GET": ("GET", r"/batch_0\.json$"),
}

SOURCE_FAULTS = (
    SourceFault("LIST", "answers 503 SlowDown", _error(503, b"SlowDown"), SUCCESS, times=2),
    SourceFault("LIST", "answers 503 SlowDown", _error(503, b"SlowDown"), "connectivity"),
    SourceFault("LIST", "answers 500", _error(500, b"InternalError"), "connectivity"),
    SourceFault("LIST", "answers 429", _error(429, b"TooManyRequests"), "connectivity"),
    SourceFault("LIST", "answers 403", _error(403, b"AccessDenied"), "auth"),
    SourceFault("LIST", "sends half an answer", _half, "connectivity"),
    SourceFault("LIST", "resets the connection in mid-answer", _reset_in_mid_body, "connectivity"),
    SourceFault("LIST", "sends the first entries as a whole", _whole_entries, "connectivity"),
    SourceFault("LIST", "answers 200 with an error", _error_as_success, SUCCESS, times=1),
    SourceFault("LIST", "answers 200 with an error", _error_as_success, "path_not_found"),
    SourceFault("LIST", SILENT, _stall, "connectivity"),
    SourceFault("LIST, a later page", "answers 503 SlowDown", _error(503, b"SlowDown"), SUCCESS, times=2),
    SourceFault("LIST, a later page", "answers 503 SlowDown", _error(503, b"SlowDown"), "connectivity"),
    SourceFault("LIST, a later page", "sends half an answer", _half, "connectivity"),
    SourceFault("LIST, a later page", "answers 200 with an error", _error_as_success, SUCCESS),
    SourceFault("HEAD", "answers 503", _error(503, b"SlowDown"), SUCCESS, times=2),
    SourceFault("HEAD", "answers 503", _error(503, b"SlowDown"), "connectivity"),
    SourceFault("GET", "answers 503 SlowDown", _error(503, b"SlowDown"), SUCCESS, times=2),
    SourceFault("GET", "answers 503 SlowDown", _error(503, b"SlowDown"), "connectivity"),
    SourceFault("GET", "answers 500", _error(500, b"InternalError"), "connectivity"),
    SourceFault("GET", "answers 429", _error(429, b"TooManyRequests"), SUCCESS, times=2),
    SourceFault("GET", "answers 404", _error(404, b"NoSuchKey"), "path_not_found"),
    SourceFault("GET", "answers 403", _error(403, b"AccessDenied"), "auth", next_ends="failed"),
    SourceFault("GET", "resets the connection in mid-body", _reset_in_mid_body, SUCCESS, times=1),
    SourceFault("GET", "resets the connection in mid-body", _reset_in_mid_body, "connectivity"),
    SourceFault("GET", "sends half a body", _half, "connectivity"),
    SourceFault("GET", "sends the first lines as a whole", _whole_lines, "path_not_found"),
    SourceFault("GET", "sends an empty body as a whole", lambda: Rewrite(lambda _: b""), "path_not_found"),
    SourceFault("GET", "sends more than there is", lambda: Rewrite(lambda body: body + b"{}"), "path_not_found"),
    SourceFault("GET", "sends a wrong byte", _wrong_byte, "data_malformed", next_ends="failed"),
    SourceFault("GET", SILENT, _stall, "connectivity"),
)


# --- an object store as the place of the data -------------------------------------------------------------------------


@dataclass(frozen=True)
class StorageFault:
    """A fault of the store that data files, manifests and metadata are written to."""

    request: str
    words: str
    action: Callable[[], Action]
    ends: str
    times: int | None = None


STORAGE_REQUESTS = {
    "data file, begin of the upload": ("POST", r"\.parquet\?uploads$"),
    "data file, a part": ("PUT", r"\.parquet\?partNumber"),
    "data file, end of the upload": ("POST", r"\.parquet\?uploadId"),
    "data file, HEAD": ("HEAD", r"\.parquet$"),
    "data file, GET": ("GET", r"\.parquet$"),
    "batch's manifest": ("POST", r"\.stats\?uploadId"),
    "Iceberg's manifest": ("POST", r"m0\.avro\?uploadId"),
    "Iceberg's manifest list": ("POST", r"snap-[^/]*\.avro\?uploadId"),
}


def _storage(request: str, *, lasting: bool) -> tuple[StorageFault, ...]:
    twice = StorageFault(request, "answers 503 SlowDown", _error(503, b"SlowDown"), SUCCESS, times=2)
    for_ever = StorageFault(request, "answers 503 SlowDown", _error(503, b"SlowDown"), "write_failure")
    return (twice, for_ever) if lasting else (twice,)


def _lost(request: str) -> StorageFault:
    return StorageFault(
        request, "does it and resets the connection", lambda: Cut("reset", applied=True), SUCCESS, times=1
    )


STORAGE_FAULTS = (
    *_storage("data file, begin of the upload", lasting=False),
    _lost("data file, begin of the upload"),
    *_storage("data file, a part", lasting=True),
    _lost("data file, a part"),
    StorageFault("data file, a part", "answers 500", _error(500, b"InternalError"), SUCCESS, times=1),
    StorageFault("data file, a part", "answers 429", _error(429, b"TooManyRequests"), "write_failure", times=1),
    StorageFault("data file, a part", "answers 403", _error(403, b"AccessDenied"), "write_failure"),
    StorageFault("data file, a part", SILENT, _stall, "write_failure"),
    *_storage("data file, end of the upload", lasting=True),
    _lost("data file, end of the upload"),
    StorageFault("data file, end of the upload", "answers 200 with an error", _error_as_success, SUCCESS, times=1),
    StorageFault("data file, end of the upload", "answers 200 with an error", _error_as_success, "write_failure"),
    *_storage("data file, HEAD", lasting=True),
    StorageFault("data file, GET", "sends half a body", _half, SUCCESS, times=1),
    StorageFault("data file, GET", "sends half a body as a whole", _cut_short, "write_failure"),
    StorageFault("data file, GET", "ends the connection", _close, "write_failure"),
    *_storage("batch's manifest", lasting=True),
    StorageFault("batch's manifest", "answers 200 with an error", _error_as_success, "write_failure"),
    *_storage("Iceberg's manifest", lasting=True),
    _lost("Iceberg's manifest list"),
    StorageFault("Iceberg's manifest list", "answers 200 with an error", _error_as_success, "write_failure"),
)
