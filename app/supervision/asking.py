"""Asks servers how they are, in as much time as a loop can spare."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from app.domain.errors import PrefectUnusableError

TIMEOUT_S = 1.0
FORBIDDEN = (401, 403)
# It is there, and has no time now.
LATER, SERVER_ERROR = (408, 429), 500
CHECK_KEY = "Check PREFECT_API_KEY or PREFECT_API_AUTH_STRING."
CHECK_ADDRESS = (
    "The address ends in /api, such as http://localhost:4200/api. Or unset PREFECT_API_URL: then `up` starts a server "
    "of its own."
)


class Asking:
    """Requests to one server: no proxy, no redirect."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        """Ask below `base`, with these headers."""
        self._base = base.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def ask(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of the answer; 0 where there is none, and None where it is no JSON."""
        data = None if body is None else json.dumps(body).encode()
        every = {"Content-Type": "application/json", **self._headers, **(headers or {})}
        try:
            request = urllib.request.Request(f"{self._base}{path}", data, every)  # noqa: S310 - checked by who gives it
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None
        except (OSError, HTTPException, ValueError):
            return 0, None


class ApiAsking:
    """Our own API."""

    def __init__(self, base: str) -> None:
        self._asking = Asking(base)

    def is_up(self) -> bool:
        """Whether it answers and has its database."""
        return self._asking.ask("/health/ready")[0] == 200  # noqa: PLR2004 - OK

    def has_prefect(self) -> bool:
        """Whether it has reached Prefect; where it does not tell strangers, that it answers has to do."""
        status, health = self._asking.ask("/health")
        return status in FORBIDDEN or (isinstance(health, dict) and health.get("prefect") == "connected")


class PrefectAsking:
    """A Prefect server."""

    def __init__(self, api_url: str, environ: Mapping[str, str], pool: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Ask it with the key that `environ` has for it, if any."""
        address, key = _apart(api_url)
        self._asking = Asking(address, {**key, **_key(environ)}, timeout_s=timeout_s)
        self._pool = pool

    def is_up(self) -> bool:
        """Whether it answers."""
        return self._asking.ask("/health") == (200, True)

    def version(self) -> str | None:
        """Its version; None where nothing answers, or only that it cannot answer now.

        Raises:
            PrefectUnusableError: What answers is something else, or refuses our key.
        """
        status, found = self._asking.ask("/admin/version")
        if status in FORBIDDEN:
            raise PrefectUnusableError("It refuses our key.", remedy=CHECK_KEY)
        if isinstance(found, str):
            return found
        # The service of its makers tells no version; that it is well, all of them do.
        if status in (0, *LATER) or status >= SERVER_ERROR or self.is_up():
            return None
        raise PrefectUnusableError("It is not Prefect's API.", remedy=CHECK_ADDRESS)

    def has_worker(self, pid: int) -> bool:
        """Whether the worker in that process of this machine is online in the pool."""
        status, workers = self._asking.ask(f"/work_pools/{self._pool}/workers/filter", {}, self._csrf())
        if status != 200 or not isinstance(workers, list):  # noqa: PLR2004 - OK
            return False
        online = [one for one in workers if isinstance(one, dict) and one.get("status") == "ONLINE"]
        return any(str(one.get("name", "")).endswith(f"-{pid}") for one in online)

    def _csrf(self) -> dict[str, str]:
        """What a server that guards itself against pages of others wants to see in a request of this kind."""
        client = str(uuid.uuid4())
        _, found = self._asking.ask(f"/csrf-token?client={client}")
        token = found.get("token") if isinstance(found, dict) else None
        return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client} if token else {}


def _apart(url: str) -> tuple[str, dict[str, str]]:
    """The address without a name and a password in it, and the header that says them."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    return urlunsplit(parts._replace(netloc=host)), _basic(unquote(user))


def _basic(words: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _key(environ: Mapping[str, str]) -> dict[str, str]:
    if key := environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if auth := environ.get("PREFECT_API_AUTH_STRING"):
        return _basic(auth)
    return {}


def _json(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except ValueError:
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """A redirect is an answer like any other: a key is not sent where somebody else says."""
