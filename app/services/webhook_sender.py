"""Sends what is in the outbox, beside the API: in order for each webhook, at least once, and never one for another.

Of several processes on one database the one with the lease sends. When it dies the next one goes on: what was on its
way is sent again, under the same id.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.domain.errors import AutoloaderError, SecretKeyError
from app.domain.events import EventLog
from app.domain.ledger import Leases
from app.domain.runs import LeaseHolder, Owner
from app.domain.webhook_messages import headers
from app.domain.webhooks import Delivery, DeliveryState, Outbox, Verdict
from app.services.webhook_retries import Answer, Patience, judge

log = EventLog(__name__)

T = TypeVar("T")

LEASE_ID = "webhooks"
LEASE_S = 30.0
# What a process that ends gives to the calls it has begun; the rest is sent again by the next one.
GRACE_S = 2.0
PRUNE_EVERY_S = 3600.0
REMOVED = "The webhook is no longer one of the ingestion's."


class Exchange(Protocol):
    """Calls receivers."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send `body` there; what came of it, within a bounded time."""
        ...


@dataclass(frozen=True)
class SenderSettings:
    """How much is sent at a time, and how patiently.

    Args:
        at_once: Calls at a time.
        each: Of them for one receiver.
        look_s: How soon a message is found that another process wrote, or whose next attempt is due.
        keep_s: So long messages that are over are shown.
    """

    at_once: int = 32
    each: int = 4
    look_s: float = 1.0
    keep_s: float = 30 * 24 * 3600.0
    patience: Patience = field(default_factory=Patience)


class WebhookSender:
    """Empties the outbox. One for a process; used in its event loop."""

    def __init__(
        self,
        outbox: Outbox,
        leases: Leases,
        owner: Owner,
        exchange: Exchange,
        settings: SenderSettings | None = None,
    ) -> None:
        self._outbox = outbox
        self._leases = leases
        self._owner = owner
        self._exchange = exchange
        self._settings = settings or SenderSettings()
        self._name = uuid.uuid4().hex
        self._leased_until = self._pruned_at = 0.0
        self._flying: dict[Delivery, asyncio.Task[None]] = {}
        self._calls: set[asyncio.Future[object]] = set()
        self._nudged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    async def start(self) -> None:
        """Send what is due, now and from now on."""
        if self._task is None:
            self._closing = False
            self._task = asyncio.create_task(self._serve(), name="webhooks")

    async def close(self) -> None:
        """Begin no more calls, and give up those that take longer than a moment. Nothing is lost by it."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self._nudged.set()
        await task
        flying = list(self._flying.values())
        if flying:
            await asyncio.wait(flying, timeout=GRACE_S)
        for one in flying:
            one.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        # A thread that is asking the database must not outlive it.
        await asyncio.gather(*self._calls, return_exceptions=True)

    def nudge(self) -> None:
        """Look now for what is due."""
        self._nudged.set()

    # --- what is due ----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._closing:
            self._nudged.clear()
            try:
                await self._look()
            except AutoloaderError as error:
                log.warning("webhooks_not_served", code=error.code, reason=str(error))
            except Exception:
                # The outermost frame of a task that nobody awaits: a defect must not end it for good.
                log.exception("webhooks_not_served")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._settings.look_s)

    async def _look(self) -> None:
        for delivery in await self._due():
            if not await self._is_mine():
                return
            if not self._closing:
                self._begin(delivery)

    async def _due(self) -> list[Delivery]:
        """What may be sent now, beside what is being sent."""
        settings = self._settings
        free = settings.at_once - len(self._flying)
        if free <= 0:
            return []
        calls = Counter(delivery.receiver for delivery in self._flying)
        full = [receiver for receiver, count in calls.items() if count >= settings.each]
        positions = [delivery.position for delivery in self._flying]
        due = await self._ask(
            lambda: self._outbox.due_deliveries(flying=positions, full=full, each=settings.each, limit=free)
        )
        chosen = []
        for delivery in due:
            calls[delivery.receiver] += 1
            if calls[delivery.receiver] <= settings.each:
                chosen.append(delivery)
        return chosen

    async def _is_mine(self) -> bool:
        """Whether this process is the one that sends; only asked for when there is something to send."""
        if time.monotonic() < self._leased_until - LEASE_S / 2:
            return True
        asked_at = time.monotonic()
        taken = await self._ask(lambda: self._leases.acquire(LEASE_ID, self._name, self._owner, LEASE_S))
        if isinstance(taken, LeaseHolder):
            return False
        self._leased_until = asked_at + LEASE_S
        if asked_at - self._pruned_at > PRUNE_EVERY_S:
            self._pruned_at = asked_at
            await self._ask(lambda: self._outbox.prune_deliveries(older_s=self._settings.keep_s))
        return True

    # --- one message ----------------------------------------------------------------------------------------------

    def _begin(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.id}")
        self._flying[delivery] = task

        def done(_task: asyncio.Task[None]) -> None:
            self._flying.pop(delivery, None)
            # What waited for it is due.
            self._nudged.set()

        task.add_done_callback(done)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            verdict = await self._verdict(delivery)
            noted = await self._ask(lambda: self._outbox.note_attempt(delivery, verdict))
        except AutoloaderError as error:
            # It stays as it was, and is sent again.
            log.warning("webhook_not_noted", delivery_id=delivery.id, code=error.code, reason=str(error))
            await asyncio.sleep(self._settings.look_s)
        except Exception:
            # The outermost frame of a task that nobody awaits.
            log.exception("webhook_not_sent", delivery_id=delivery.id)
            await asyncio.sleep(self._settings.look_s)
        else:
            if noted is not None:
                _tell(noted, verdict)

    async def _verdict(self, delivery: Delivery) -> Verdict:
        """Send it, where it still goes somewhere, and say what becomes of it."""
        try:
            target = await self._ask(lambda: self._outbox.webhook_target(delivery.ingestion_id, delivery.webhook))
        except SecretKeyError as error:
            return self._judged(delivery, Answer(error=f"The message was not sent, for it cannot be signed. {error}"))
        if target is None or target.disabled_reason is not None:
            return Verdict(DeliveryState.DEAD, error=REMOVED if target is None else target.disabled_reason)
        body = delivery.body.encode()
        signed = headers(delivery.id, int(time.time()), body, target.secret)
        return self._judged(delivery, await self._exchange.post(target.url, signed, body))

    def _judged(self, delivery: Delivery, answer: Answer) -> Verdict:
        return judge(
            answer,
            attempts=delivery.attempts,
            waited_s=delivery.waited_s,
            patience=self._settings.patience,
            chance=random.random(),  # noqa: S311 - it spreads, and hides nothing
        )

    async def _ask(self, question: Callable[[], T]) -> T:
        """Ask the database in a thread, which is waited for at the end although whoever asked is gone."""
        call = asyncio.ensure_future(asyncio.to_thread(question))
        self._calls.add(call)  # type: ignore[arg-type]  # of any type
        call.add_done_callback(self._calls.discard)
        return await asyncio.shield(call)


def _tell(delivery: Delivery, verdict: Verdict) -> None:
    known = {
        "delivery_id": delivery.id,
        "ingestion_id": delivery.ingestion_id,
        "run_id": delivery.run_id,
        "kind": delivery.event,
        "receiver": delivery.receiver,
        "attempt": delivery.attempts,
        "status": delivery.last_status,
    }
    if delivery.state is DeliveryState.DELIVERED:
        log.info("webhook_delivered", **known)
    elif delivery.state is DeliveryState.DEAD:
        log.warning("webhook_given_up", **known, reason=delivery.error)
    else:
        log.info("webhook_failed", **known, reason=delivery.error, again_s=round(verdict.wait_s, 1))
    if verdict.disable is not None:
        log.warning("webhook_disabled", **known, reason=verdict.disable)
