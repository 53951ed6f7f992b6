"""The verbs on an ingestion's webhooks: try one, look at what was sent, have it sent once more."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import urlsplit

from app.domain.errors import InvalidFieldError, NotFoundError, WebhookOffError
from app.domain.events import EventLog
from app.domain.ingestions import Ingestion, User
from app.domain.webhook_messages import headers, message
from app.domain.webhooks import DEFAULT_PORTS, TEST_EVENT, Delivery, DeliveryState, Outbox, Webhook, webhooks_of
from app.services.host_addresses import Allowed, HostUnknownError, Resolver, allowed_addresses
from app.services.webhook_retries import Answer
from app.services.webhook_sender import Exchange

log = EventLog(__name__)

# Test calls that are made at once; others wait for their turn, and nobody for them.
TESTS_AT_ONCE = 8
# So long whoever makes an ingestion waits to hear whether its receivers' names lead anywhere.
LOOK_S = 2.0


class WebhookStore(Outbox, Protocol):
    """What is asked of the database."""

    def ingestion(self, ingestion_id: str, tenant: str | None = None, *, deleted: bool = False) -> Ingestion | None:
        """The ingestion, where the tenant has it."""
        ...


@dataclass(frozen=True)
class TestCall:
    """What a receiver said to a test call."""

    __test__ = False

    webhook: str
    delivery_id: str
    signed: bool
    answer: Answer


class WebhookService:
    """The webhooks of the service's ingestions, for whoever asks over HTTP or otherwise."""

    def __init__(self, store: WebhookStore, exchange: Exchange, nudge: Callable[[], None]) -> None:
        """Work with `store`; `nudge` has the sender look for what is due."""
        self._store = store
        self._exchange = exchange
        self._nudge = nudge
        self._tests = asyncio.Semaphore(TESTS_AT_ONCE)

    async def list_deliveries(
        self,
        ingestion_id: str,
        *,
        state: DeliveryState | None,
        limit: int,
        before: int | None,
        current_user: User,
    ) -> list[Delivery]:
        """A page of what was sent or is to be, newest first; one more than `limit` where there are more.

        Raises:
            NotFoundError: The user's tenant has no such ingestion.
        """
        await self._ingestion(ingestion_id, current_user)
        return await asyncio.to_thread(
            self._store.list_deliveries, ingestion_id, state=state, limit=limit, before=before
        )

    async def redeliver(self, ingestion_id: str, delivery_id: str, current_user: User) -> Delivery:
        """Have a message sent once more, under the same id.

        Raises:
            NotFoundError: There is no such ingestion or message.
            WebhookOffError: Its webhook is disabled, or is no longer there.
        """
        await self._ingestion(ingestion_id, current_user)
        found = await asyncio.to_thread(self._store.redeliver, ingestion_id, delivery_id)
        log.info("webhook_asked_again", delivery_id=delivery_id, ingestion_id=ingestion_id, user=current_user.name)
        self._nudge()
        return found

    async def test(self, ingestion_id: str, webhook: str | None, current_user: User) -> TestCall:
        """Call a receiver with a message that tells of nothing, and say what it answered. Nothing is kept.

        A disabled webhook is called too, and stays disabled.

        Args:
            ingestion_id: Whose it is.
            webhook: Its name, or its address where it has none; None where the ingestion has only one.
            current_user: Who asks.

        Raises:
            NotFoundError: There is no such ingestion.
            InvalidFieldError: The ingestion has no such webhook, or several and none was named.
            WebhookOffError: It was removed meanwhile.
            SecretKeyError: Its secret cannot be read.
        """
        ingestion = await self._ingestion(ingestion_id, current_user)
        chosen = _chosen(webhooks_of(ingestion.document), webhook)
        target = await asyncio.to_thread(self._store.webhook_target, ingestion_id, chosen.key)
        if target is None:
            raise WebhookOffError
        known = {
            "ingestion": {"id": ingestion.id, "name": ingestion.name},
            "link": f"/api/v1/ingestions/{ingestion.id}",
        }
        body = message(TEST_EVENT, datetime.now(UTC), known).encode()
        delivery_id = uuid.uuid4().hex
        async with self._tests:
            signed = headers(delivery_id, int(time.time()), body, target.secret)
            answer = await self._exchange.post(target.url, signed, body)
        log.info("webhook_tested", delivery_id=delivery_id, ingestion_id=ingestion_id, status=answer.status)
        return TestCall(chosen.key, delivery_id, target.secret is not None, answer)

    async def _ingestion(self, ingestion_id: str, current_user: User) -> Ingestion:
        found = await asyncio.to_thread(self._store.ingestion, ingestion_id, current_user.tenant)
        if found is None:
            raise NotFoundError(f"There is no ingestion {ingestion_id}.")
        return found


def _chosen(webhooks: Sequence[Webhook], key: str | None) -> Webhook:
    found = [one for one in webhooks if key in (None, one.key)]
    if len(found) == 1:
        return found[0]
    if not webhooks:
        raise InvalidFieldError("The ingestion has no webhooks.", field="webhook")
    if found:
        raise InvalidFieldError("The ingestion has several webhooks.", remedy="Name one of them.", field="webhook")
    raise InvalidFieldError("The ingestion has no such webhook.", remedy="Use its name, or its url.", field="webhook")


class ReceiverLooks:
    """Looks whether the receivers that somebody names are there, as far as their names and addresses tell."""

    def __init__(self, allowed: Allowed, resolver: Resolver, *, within_s: float = LOOK_S) -> None:
        """Ask `resolver`, and hold what it says against `allowed`."""
        self._allowed = allowed
        self._resolver = resolver
        self._within_s = within_s

    async def doubts(self, webhooks: Sequence[Webhook]) -> list[str]:
        """A sentence for each whose messages would not arrive as things are now. Waits a moment at most."""
        found = await asyncio.gather(*(self._doubt(one) for one in webhooks))
        return [doubt for doubt in found if doubt]

    async def _doubt(self, webhook: Webhook) -> str:
        parts = urlsplit(webhook.url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(self._within_s):
                port = parts.port or DEFAULT_PORTS[parts.scheme]
                await allowed_addresses(self._allowed, self._resolver, host, port)
        except TimeoutError:
            reason = f"{host} did not resolve within {self._within_s:g} s."
        except HostUnknownError as error:
            reason = str(error)
        else:
            reason = ""
        return reason and f"The webhook {webhook.key!r} cannot be delivered as things are: {reason}"
