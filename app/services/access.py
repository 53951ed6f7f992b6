"""Who asks: told by the token that is sent, as the database knows it at that moment."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.domain.access import AccessToken, AccessTokens, TokenLook, TokenState, digest_of, is_token
from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.domain.ingestions import User

log = EventLog(__name__)

# When a token was last used is kept to this: a write for every request would be the most that the database does.
NOTED_EVERY = timedelta(minutes=1)
# Who asks must not wait for the threads in which slow things are done.
AT_ONCE = 4


class Denial(enum.StrEnum):
    """Why a request is nobody's."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Identity:
    """Who sent a request.

    Args:
        is_server_mode: Whether there are tokens; without them, where the request comes from decides.
        user: Who it is, by a token that is good.
        denial: Why it is nobody.
        token_id: Of the token that was sent, where it is known, good or not.
    """

    is_server_mode: bool
    user: User | None = None
    denial: Denial | None = None
    token_id: str | None = None


class AccessControl:
    """Looks every token up anew: one that was revoked is good for no request that comes after."""

    def __init__(self, tokens: AccessTokens, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Start nothing yet."""
        self._tokens = tokens
        self._now = now
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="access")
        self._noting: dict[str, asyncio.Task[None]] = {}
        self._was_server_mode = False

    @property
    def was_server_mode(self) -> bool:
        """Whether there were tokens at the last look: then there still are when the database does not say."""
        return self._was_server_mode

    async def identify(self, token: str | None) -> Identity:
        """Tell who sends this; None: no token was sent.

        Raises:
            AutoloaderError: The database does not say.
        """
        digest = digest_of(token) if token is not None and is_token(token) else None
        look: TokenLook = await self._apart(lambda: self._tokens.look_up_token(digest))
        self._was_server_mode = look.is_server_mode
        if not look.is_server_mode:
            return Identity(is_server_mode=False)
        if token is None:
            return Identity(is_server_mode=True, denial=Denial.MISSING)
        return self._judged(look.token)

    def _judged(self, token: AccessToken | None) -> Identity:
        if token is None:
            return Identity(is_server_mode=True, denial=Denial.UNKNOWN)
        now = self._now()
        state = token.state(now)
        if state is not TokenState.ACTIVE:
            return Identity(is_server_mode=True, denial=Denial(state.value), token_id=token.id)
        if token.last_used_at is None or now - token.last_used_at >= NOTED_EVERY:
            self._note(token.id, now)
        user = User(token.name or token.id, token.tenant, token.role)
        return Identity(is_server_mode=True, user=user, token_id=token.id)

    def _note(self, token_id: str, now: datetime) -> None:
        """Begin to keep when it was used; the request does not wait for that."""
        if token_id not in self._noting:
            task = asyncio.create_task(self._kept(token_id, now), name="token-used")
            self._noting[token_id] = task
            task.add_done_callback(lambda _: self._noting.pop(token_id, None))

    async def _kept(self, token_id: str, now: datetime) -> None:
        try:
            await asyncio.to_thread(self._tokens.note_token_used, token_id, now)
        except AutoloaderError as error:
            # The next request tries again.
            log.warning("token_use_not_noted", access_id=token_id, reason=str(error))

    async def close(self) -> None:
        """Wait for what is being kept, and begin nothing more."""
        await asyncio.gather(*self._noting.values())
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _apart(self, work: Callable[[], TokenLook]) -> TokenLook:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
