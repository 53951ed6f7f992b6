"""The desk at a server: the API over HTTP, by the standard library alone, so that the bare installation has it too."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from types import MappingProxyType
from typing import Any, cast

from app.cli.desk import PAGE, Json, Progress
from app.cli.stream_news import SILENCE_S, StreamNews
from app.domain.addresses import passwords_of
from app.domain.errors import (
    AutoloaderError,
    ConflictError,
    FatalError,
    InvalidFieldError,
    NotFoundError,
    RetriableError,
    ServerNotUnderstoodError,
    ServerUnreachableError,
    UsageError,
)
from app.domain.redaction import Redactor

PREFIX = "/api/v1"
# A direct run is answered when it has ended or when its time to wait is over, which is the server's to say.
TIMEOUT_S = 120.0
LOG_LINES = 200
STREAM = "text/event-stream"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What a bare server of another kind answers where ours says a code.
_KINDS: Mapping[int, type[AutoloaderError]] = {
    HTTPStatus.NOT_FOUND: NotFoundError,
    HTTPStatus.CONFLICT: ConflictError,
    HTTPStatus.UNPROCESSABLE_ENTITY: UsageError,
}
_GIVE_ONE = (
    "Give a good one by AUTOLOADER_TOKEN or --token-file; `autoloader tokens create` makes one, where the service's "
    "database is."
)
# Where the API speaks to those who write requests.
_REMEDIES: Mapping[str, str] = {
    "token_required": _GIVE_ONE,
    "token_invalid": _GIVE_ONE,
    "role_too_low": "`autoloader tokens create --role …` makes a token of that role, where the service's database is.",
}
# What a proxy says while the server behind it is started anew.
_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class AfarDesk:
    """Keeps `Desk`'s promises."""

    def __init__(
        self,
        address: str,
        token: str | None,
        redactor: Redactor,
        *,
        note: Callable[[str], None],
        timeout_s: float = TIMEOUT_S,
        page: int = PAGE,
    ) -> None:
        """Ask the service at that address.

        Args:
            address: `http(s)://host[:port]`, with a path where a proxy gives it one.
            token: Who asks; None: nobody says.
            redactor: Takes the token out of what is told.
            note: Told a sentence that a person should know.
            timeout_s: How long an answer is waited for.
            page: How much of a list is asked for at once.

        Raises:
            InvalidFieldError: The address or the token cannot be used.
        """
        self._base, host, is_open = _checked_address(address)
        self._headers = {"Accept": "application/json"}
        self._redactor = redactor
        self._timeout_s = timeout_s
        self._page = page
        if token:
            if not token.isascii() or not token.isprintable() or " " in token:
                raise InvalidFieldError("The token holds what no token has: a space, a line's end or no ASCII.")
            self._headers["Authorization"] = f"Bearer {token}"
            if is_open and host not in _LOOPBACK:
                note(f"The token goes to {host} unencrypted; https:// would keep it from others.")
        proxies = urllib.request.ProxyHandler({} if host in _LOOPBACK else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect)

    # --- the promises -----------------------------------------------------------------------------------------------

    def create(self, document: Mapping[str, Any]) -> Json:
        """Make one."""
        return self._object("POST", "/ingestions", document)

    def ingestion(self, ingestion_id: str) -> Json:
        """One."""
        return self._object("GET", _path(ingestion_id))

    def ingestions(
        self, *, status: str | None = None, source_type: str | None = None, q: str | None = None, limit: int
    ) -> list[Json]:
        """The newest."""
        return self._listed("/ingestions", {"status": status, "source_type": source_type, "q": q}, limit)

    def pause(self, ingestion_id: str) -> Json:
        """Let its schedule rest."""
        return self._object("POST", _path(ingestion_id, "pause"))

    def resume(self, ingestion_id: str) -> Json:
        """Let it go on."""
        return self._object("POST", _path(ingestion_id, "resume"))

    def delete(self, ingestion_id: str, *, delete_table: bool) -> None:
        """Delete it."""
        self._ask("DELETE", f"{_path(ingestion_id)}?delete_table={str(delete_table).lower()}")

    def run(self, ingestion_id: str, *, waits: bool = True) -> Json:
        """Begin a run."""
        headers = {} if waits else {"Prefer": "respond-async"}
        return self._object("POST", _path(ingestion_id, "run"), headers=headers)

    def runs(self, ingestion_id: str, *, limit: int) -> list[Json]:
        """Its runs."""
        return self._listed(_path(ingestion_id, "runs"), {}, limit)

    def run_of(self, ingestion_id: str, run_id: str) -> Json:
        """One run."""
        return self._object("GET", _path(ingestion_id, "runs", run_id))

    def log(self, ingestion_id: str, run_id: str, *, after: int) -> list[Json]:
        """Lines of its log."""
        path = f"{_path(ingestion_id, 'runs', run_id, 'logs')}?limit={LOG_LINES}&after={after}"
        return list(self._object("GET", path)["items"])

    def listening(self, ingestion_id: str, run_id: str) -> StreamNews:
        """News of a run."""
        asked = urllib.parse.urlencode({"ingestion_id": ingestion_id, "run_id": run_id})
        return StreamNews(lambda seen: self._stream(f"/events?{asked}", seen))

    def migrate(self, *, dry_run: bool, on_progress: Progress) -> Json:
        """Make the deployments that are missing. A request does what it can in its time; the next one goes on."""
        whole = self._object("POST", "/migrations/prefect", {"dry_run": dry_run})
        while whole["left"] and not dry_run:
            done = len(whole["created"]) + len(whole["updated"])
            on_progress(done, done + whole["left"])
            more = self._object("POST", "/migrations/prefect", {"dry_run": False})
            if not (more["created"] or more["updated"]):
                # What is left fails, and says why.
                return {**whole, "failed": more["failed"], "left": more["left"]}
            created, updated = whole["created"] + more["created"], whole["updated"] + more["updated"]
            whole = {**whole, "created": created, "updated": updated, "failed": more["failed"], "left": more["left"]}
        return whole

    def pause_for(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)

    # --- the wire ---------------------------------------------------------------------------------------------------

    def _object(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Json:
        found = self._ask(method, path, body, headers=headers)
        if not isinstance(found, dict):
            raise self._not_understood(f"answered no JSON object to {method} {path}")
        return found

    def _listed(self, path: str, query: Mapping[str, str | None], limit: int) -> list[Json]:
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            asked = {**query, "limit": str(min(self._page, limit - len(found))), "cursor": cursor}
            parameters = urllib.parse.urlencode({name: value for name, value in asked.items() if value is not None})
            page = self._object("GET", f"{path}?{parameters}")
            if not isinstance(page.get("items"), list):
                raise self._not_understood(f"answered no page to GET {path}")
            found += page["items"]
            cursor = page.get("next")
            if cursor is None:
                break
        return found

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Any:  # noqa: ANN401 - any JSON
        data = None if body is None else json.dumps(body).encode()
        typed = {} if data is None else {"Content-Type": "application/json"}
        try:
            with self._opened(method, path, data, {**headers, **typed}, self._timeout_s) as answer:
                text = answer.read()
        except (OSError, HTTPException) as error:
            raise self._unreachable(error, method) from error
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise self._not_understood(f"answered no JSON to {method} {path.partition('?')[0]}") from None

    def _stream(self, path: str, seen: int | None) -> HTTPResponse:
        """An answer that goes on.

        Raises:
            AutoloaderError: It is refused, or is no stream.
            OSError, HTTPException: Nobody answers.
        """
        headers = {"Accept": STREAM} | ({} if seen is None else {"Last-Event-ID": str(seen)})
        answer = self._opened("GET", path, None, headers, SILENCE_S)
        if answer.headers.get_content_type() != STREAM:
            answer.close()
            raise self._not_understood(f"answered no stream to GET {path.partition('?')[0]}")
        return answer

    def _opened(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> HTTPResponse:
        url = f"{self._base}{PREFIX}{path}"
        request = urllib.request.Request(url, data, {**self._headers, **headers}, method=method)  # noqa: S310 - checked
        try:
            return cast("HTTPResponse", self._opener.open(request, timeout=timeout_s))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.read(), f"{method} {path.partition('?')[0]}") from None

    def _unreachable(self, error: Exception, method: str) -> ServerUnreachableError:
        reason = getattr(error, "reason", None) or error
        text = _said(reason)
        done = "" if method == "GET" or _never_sent(reason) else " It may have done what it was asked all the same."
        return ServerUnreachableError(self._redactor.text(f"The server at {self._base} does not answer: {text}.{done}"))

    def _refusal(self, status: int, text: bytes, asked: str) -> AutoloaderError:
        """The server's problem as an error of our own, with its words."""
        try:
            problem = json.loads(text)
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            if status in _AWAY:
                before = f"The server at {self._base} does not answer: what stands before it says {status}."
                return ServerUnreachableError(self._redactor.text(before))
            return self._not_understood(f"answered {status} to {asked}, and does not say why as Autoloader does")
        kind = _KINDS.get(status, RetriableError if problem.get("retryable") else FatalError)
        # The class says what to do next, the code what it is; of most codes the tree has a class, and not of all.
        named = type("RefusedError", (kind,), {"code": code, "remedy": ""})
        remedy = _REMEDIES.get(code) or str(problem.get("remedy") or "")
        if status == HTTPStatus.NOT_FOUND and not remedy:
            remedy = ServerNotUnderstoodError.remedy
        refused: AutoloaderError = named(self._redactor.text(detail), remedy=self._redactor.text(remedy))
        return refused

    def _not_understood(self, what: str) -> ServerNotUnderstoodError:
        return ServerNotUnderstoodError(self._redactor.text(f"What is at {self._base} {what}."))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A token goes to whom it is meant for, and not where he points."""


def _path(ingestion_id: str, *more: str) -> str:
    return "/".join(["/ingestions", *(urllib.parse.quote(part, safe="") for part in (ingestion_id, *more))])


def _said(reason: object) -> str:
    """Why there was no answer."""
    if isinstance(reason, ssl.SSLError):
        if reason.reason == "WRONG_VERSION_NUMBER":
            return "what is there speaks no TLS; perhaps http:// is meant"
        return getattr(reason, "verify_message", "") or reason.reason or str(reason)
    return str(getattr(reason, "strerror", None) or reason or type(reason).__name__)


def _never_sent(reason: object) -> bool:
    return isinstance(reason, ConnectionRefusedError)


def _checked_address(address: str) -> tuple[str, str, bool]:
    """The address without what is behind the service's own, its host, and whether everybody on the way can read along.

    Raises:
        InvalidFieldError: It is none.
    """
    try:
        parts = urllib.parse.urlsplit(address.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urllib.parse.urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        shown = Redactor(passwords_of(address)).text(address)
        raise InvalidFieldError(
            f"{shown!r} is no address of a service.", remedy="Give one such as http://localhost:8000."
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidFieldError(
            "The address of the service holds a user or a password.", remedy="Give a token by AUTOLOADER_TOKEN instead."
        )
    return address.strip().rstrip("/").removesuffix(PREFIX), host, parts.scheme == "http"
