"""Prefect's news of flow runs: its event stream, its calls, and ours to it all end in the same question to it.

What comes in is a hint: which flow run to ask about. What is true of it Prefect is asked itself, and what is done then
may be done twice or late. Whichever way is shut, another one, and in the end the beat, comes to the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.services.prefect_callback import Callback

log = EventLog(__name__)

# More flow runs than these are not asked about one by one.
MOST_WAITING = 1_000
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
TOKEN_HASH = "prefect_webhook_token_hash"  # noqa: S105 - the name of what is kept
CALLBACK_PATH = "/api/v1/webhooks/prefect"


class Notes(Protocol):
    """What is kept of the installation as a whole."""

    def noted(self, name: str) -> str | None:
        """What was noted under that name."""
        ...

    def note(self, name: str, value: str) -> None:
        """Note it, in the place of what was noted before."""
        ...


class Caller(Protocol):
    """What of `PrefectService` is needed for its calls to us."""

    async def callback(self) -> Callback | None:
        """How Prefect calls us now."""
        ...

    async def set_callback(self, callback: Callback) -> None:
        """Have Prefect call us so."""
        ...

    async def remove_callback(self) -> None:
        """Have Prefect call us no more."""
        ...


class PrefectHints:
    """Flow runs that Prefect is to be asked about. Used in one event loop."""

    def __init__(
        self, notes: Notes, look_at: Callable[[str], Awaitable[None]], look_at_all: Callable[[], Awaitable[None]]
    ) -> None:
        """`look_at` asks about one flow run and does what follows, `look_at_all` about all that may be of interest."""
        self._notes = notes
        self._look_at = look_at
        self._look_at_all = look_at_all
        self._waiting: dict[str, None] = {}
        self._all_wait = False
        self._news = asyncio.Event()

    async def accepts(self, token: str) -> bool:
        """Whether that is the token that Prefect was given."""
        kept = await asyncio.to_thread(self._notes.noted, TOKEN_HASH)
        return kept is not None and hmac.compare_digest(kept, hash_of(token))

    def tell(self, flow_run_id: str | None) -> None:
        """Have that flow run, or all, asked about soon. Waits for nobody."""
        if flow_run_id is None or len(self._waiting) >= MOST_WAITING:
            self._all_wait = True
        else:
            self._waiting[flow_run_id] = None
        self._news.set()

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, {}
            is_all, self._all_wait = self._all_wait, False
            try:
                if is_all:
                    await self._look_at_all()
                for flow_run_id in waiting:
                    await self._look_at(flow_run_id)
            except AutoloaderError as error:
                # The beat comes to the same.
                log.info("hint_not_followed", code=error.code, reason=str(error))
            except Exception:
                # The outermost frame of a task that nobody awaits: a defect must not end it for good.
                log.exception("hint_not_followed")


class PrefectStream:
    """Prefect's event stream as hints."""

    def __init__(
        self, open_stream: Callable[[], AsyncIterator[str]], is_there: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        """Open the stream while Prefect is there, and tell the flow runs that it names."""
        self._open_stream = open_stream
        self._is_there = is_there
        self._tell = tell

    async def run(self) -> None:
        """Listen, until cancelled. A stream that ends is opened again, later each time that it gave nothing."""
        pause_s = FIRST_PAUSE_S
        while True:
            if self._is_there():
                pause_s = FIRST_PAUSE_S if await self._listen() else min(pause_s * 2, LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _listen(self) -> bool:
        heard = False
        try:
            async for flow_run_id in self._open_stream():
                heard = True
                self._tell(flow_run_id)
        except Exception as error:  # noqa: BLE001 - the library raises what it likes, and nothing here hangs on it
            log.info("prefect_stream_ended", reason=f"{type(error).__name__}: {error}")
        return heard


class PrefectCallback:
    """Sees to it that Prefect calls us where it can, and knows a token that lets it in."""

    def __init__(
        self, prefect: Caller, notes: Notes, public_url: str | None, learn: Callable[[list[str]], None]
    ) -> None:
        """`public_url` is where Prefect reaches us; None: it is not to call. `learn` is told each token."""
        self._prefect = prefect
        self._notes = notes
        self._url = None if public_url is None else f"{public_url.rstrip('/')}{CALLBACK_PATH}"
        self._learn = learn

    async def ensure(self) -> None:
        """Make what is missing or another than it has to be. Again: no change.

        Only the hash of a token is kept here, so one that Prefect lost is made anew.

        Raises:
            SchedulerUnavailableError: Prefect does not answer.
        """
        if self._url is None:
            await self._prefect.remove_callback()
            return
        found = await self._prefect.callback()
        kept = await asyncio.to_thread(self._notes.noted, TOKEN_HASH)
        if found is not None:
            self._learn([found.token])
            if found.url == self._url and kept is not None and hmac.compare_digest(kept, hash_of(found.token)):
                return
        token = secrets.token_urlsafe(32)
        self._learn([token])
        # In this order: a process that dies in between leaves a token that nobody accepts, and the next pass sees it.
        await self._prefect.set_callback(Callback(self._url, token))
        await asyncio.to_thread(self._notes.note, TOKEN_HASH, hash_of(token))
        log.info("prefect_callback_made", url=self._url)


def hash_of(token: str) -> str:
    """What is kept of a token; it is random enough for a plain hash."""
    return hashlib.sha256(token.encode()).hexdigest()
