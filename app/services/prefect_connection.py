"""The wire to Prefect: calls that end within their time, and a breaker that spares the next ones."""

from __future__ import annotations

import asyncio
import importlib
import math
import random
import time
from base64 import b64decode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import httpx

from app.domain.errors import DeploymentGoneError, SchedulerUnavailableError
from app.domain.events import EventLog
from app.domain.redaction import Redactor
from app.services.transliteration import defer_transliteration
from app.services.zone_names import remember_zone_names

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

log = EventLog(__name__)

T = TypeVar("T")

# For every process of ours that talks to Prefect, before its library is imported: it must never start a server of its
# own when it has no address, and it must not tell anybody that it is used.
ENVIRONMENT: Mapping[str, str] = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
# For those that must answer somebody meanwhile: a library that tries again by itself has its caller wait for a minute.
IMPATIENT: Mapping[str, str] = {"PREFECT_CLIENT_MAX_RETRIES": "0"}

GONE = 404
# It did nothing of what was asked, for somebody else is writing.
BUSY = (429, 503)
TRIED_AGAIN = (408, 429, 502, 503)
# Part of a call's time-out within which it is asked again, and the pauses between.
BUSY_SHARE = 1 / 3
BUSY_PAUSE_S = (0.1, 0.8)
LONGEST_S = 60.0
# So many calls at once, one more than the reconciler makes: the server is one process, which is no faster for more of
# them and answers each of them later, and on SQLite it refuses them.
AT_ONCE = 2
# So long a call waits until it is its turn: a server that answers is waited for, however many ask.
IN_LINE_S = 30.0
UNAUTHORIZED = (401, 403)


class PrefectSlowError(SchedulerUnavailableError):
    """A call was not answered in time, and others were meanwhile: the server is there."""


class PrefectConnection:
    """One client of one server, used from one event loop at a time. A few calls at once; the others wait in line."""

    def __init__(self, api_url: str, *, timeout_s: float, pause_s: float, in_line_s: float = IN_LINE_S) -> None:
        # The library is imported later.
        remember_zone_names()
        defer_transliteration()
        self._api_url = api_url
        self._in_line_s = in_line_s
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._client: PrefectClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._silent_until = 0.0
        self._answered_at = -LONGEST_S
        self._line: asyncio.Semaphore | None = None
        # How many ended how: answered, gone, refused, silent, or spared while the breaker was open.
        self.calls: Counter[str] = Counter()
        # Each task has its own.
        self._patience_s: ContextVar[float] = ContextVar("patience_s", default=0.0)

    @contextmanager
    def patiently(self, seconds: float) -> Iterator[None]:
        """Wait so long for each call of this task's until the block ends: nobody waits for it."""
        token = self._patience_s.set(seconds)
        try:
            yield
        finally:
            self._patience_s.reset(token)

    @property
    def is_patient(self) -> bool:
        """Whether this task waits longer than others."""
        return self._patience_s.get() > 0

    @property
    def is_silent(self) -> bool:
        """Whether a call got no answer a moment ago, so that none is made."""
        return time.monotonic() < self._silent_until

    def spare(self, *, until_answered: bool = False) -> None:
        """Make no call for a while: whoever looks after the server found that it does not help.

        Args:
            until_answered: None at all before one that is made anyway is answered: somebody looks again and again.
        """
        pause_s = math.inf if until_answered else self._pause_s
        self._silent_until = max(self._silent_until, time.monotonic() + pause_s)

    async def open(self) -> None:
        """Import the library, in a thread because that takes more than a second, and make the client."""
        await asyncio.to_thread(importlib.import_module, "prefect.client.orchestration")
        await self._opened()

    async def close(self) -> None:
        """Close the client."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.__aexit__(None, None, None)

    async def ask(self, call: Callable[[PrefectClient], Awaitable[T]], *, anyway: bool = False) -> T:
        """The answer to a call, which may be several requests: within the time-out all together.

        The time-out begins when it is the call's turn: first come, first served.

        Args:
            call: What to ask.
            anyway: Ask at once, although the last call got no answer, or others wait.

        Raises:
            DeploymentGoneError: Prefect does not know what was asked for.
            SchedulerUnavailableError: There was no answer, or none that helps; or none is waited for.
        """
        if anyway:
            return await self._counted(call, lambda: False)
        if self._client is None:
            raise SchedulerUnavailableError("Prefect was not reached yet.")
        self._refuse_while_silent()
        async with self._turn():
            # It may have become silent while we waited.
            self._refuse_while_silent()
            # Nor is it asked again once it has.
            return await self._counted(call, lambda: self.is_silent)

    def _refuse_while_silent(self) -> None:
        if self.is_silent:
            self.calls["spared"] += 1
            raise SchedulerUnavailableError("Prefect did not answer a moment ago.")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        if self._line is None or self._loop is not loop:
            await self._opened()
            self._line = asyncio.Semaphore(AT_ONCE)
        line = self._line
        try:
            async with asyncio.timeout(self._in_line_s):
                await line.acquire()
        except TimeoutError:
            self.calls["refused"] += 1
            raise SchedulerUnavailableError(
                f"Prefect has more to do than it can: it was not our turn within {self._in_line_s:g} s."
            ) from None
        try:
            yield
        finally:
            line.release()

    async def _counted(self, call: Callable[[PrefectClient], Awaitable[T]], gives_up: Callable[[], bool]) -> T:
        try:
            answer = await self._asked(call, gives_up)
        except DeploymentGoneError:
            self.calls["gone"] += 1
            raise
        except SchedulerUnavailableError:
            self.calls["silent" if self.is_silent else "refused"] += 1
            raise
        self._silent_until, self._answered_at = 0.0, time.monotonic()
        self.calls["answered"] += 1
        return answer

    async def _asked(self, call: Callable[[PrefectClient], Awaitable[T]], gives_up: Callable[[], bool]) -> T:
        client = await self._opened()
        from prefect.exceptions import ObjectNotFound, PrefectException  # noqa: PLC0415 - imported by now

        timeout_s = max(self._timeout_s, self._patience_s.get())
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                return await _answered(client, call, patience_s=timeout_s * BUSY_SHARE, gives_up=gives_up)
        except TimeoutError:
            late = f"Prefect did not answer within {timeout_s:g} s."
            # Who answers others meanwhile is slow, and not silent.
            raise (PrefectSlowError(late) if self._answered_at > began_at else self._silence(late)) from None
        except ObjectNotFound as error:
            raise DeploymentGoneError from error
        except httpx.HTTPStatusError as error:
            raise _of_status(error) from error
        except PrefectException as error:
            raise SchedulerUnavailableError(f"Prefect refused what it was asked ({type(error).__name__}).") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._silence(f"Prefect cannot be reached ({type(error).__name__}).") from error
        except ValueError as error:
            # What answered does not speak as Prefect does: another server's page, or another version's fields.
            raise self._silence("What answers at PREFECT_API_URL does not speak as Prefect does.") from error
        except RuntimeError as error:
            raise self._silence(f"Prefect cannot be asked ({error}).") from error

    def _silence(self, reason: str) -> SchedulerUnavailableError:
        self.spare()
        return SchedulerUnavailableError(reason)

    async def _opened(self) -> PrefectClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = await self._made(), loop
        return self._client

    async def _made(self) -> PrefectClient:
        from prefect.client.orchestration import PrefectClient  # noqa: PLC0415 - takes more than a second
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY  # noqa: PLC0415

        auth, key = PREFECT_API_AUTH_STRING.value(), PREFECT_API_KEY.value()
        # What a call waits for is limited as a whole, in `ask`.
        settings = {"timeout": max(self._timeout_s, LONGEST_S), "event_hooks": {"response": [_told_at_once]}}
        try:
            client = PrefectClient(self._api_url, auth_string=auth, api_key=key, httpx_settings=settings)
        except httpx.InvalidURL:
            # Without the reason, which may quote a part of a password that is not escaped.
            raise self._silence("PREFECT_API_URL is no address.") from None
        return await client.__aenter__()


async def _told_at_once(response: httpx.Response) -> None:
    """Raise for what the client would try again: even without a further try it waits two seconds before it says so."""
    if response.status_code in TRIED_AGAIN:
        await response.aread()
        response.raise_for_status()


async def _answered(
    client: PrefectClient,
    call: Callable[[PrefectClient], Awaitable[T]],
    *,
    patience_s: float,
    gives_up: Callable[[], bool],
) -> T:
    """The answer; of a server that is busy for a moment, as one with SQLite often is, the one that it gives then."""
    shortest_s, longest_s = BUSY_PAUSE_S
    pause_s, until = shortest_s, time.monotonic() + patience_s
    while True:
        try:
            return await call(client)
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in BUSY or time.monotonic() + pause_s > until:
                raise
            # Those who were refused together do not come back together.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            if gives_up():
                raise
        pause_s = min(2 * pause_s, longest_s)


def _shown_to(request: httpx.Request) -> Iterator[str]:
    """The secrets that a request tells the server, which the server may tell in its answer."""
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    yield key
    if kind.lower() == "basic":
        with suppress(ValueError):
            user = b64decode(key).decode()
            yield user
            yield user.partition(":")[2]


def _of_status(error: httpx.HTTPStatusError) -> SchedulerUnavailableError:
    status = error.response.status_code
    if status == GONE:
        return DeploymentGoneError()
    if status in UNAUTHORIZED:
        return SchedulerUnavailableError(
            "Prefect refuses our key.", remedy="Check PREFECT_API_KEY or PREFECT_API_AUTH_STRING."
        )
    detail = ""
    with suppress(httpx.ResponseNotRead):
        # Cut last: half a secret would not be known for one.
        detail = Redactor(_shown_to(error.request)).text(error.response.text)[:200]
    return SchedulerUnavailableError(f"Prefect answered {status}: {detail}")
