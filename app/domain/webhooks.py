"""Outgoing webhooks: who is told of an ingestion's runs, what is on its way to them, and who keeps that.

A message is written to the outbox in the transaction that ends the run, so that none is lost and none tells of what did
not happen. It is sent afterwards, at least once; whoever gets it twice knows it by its id.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from app.domain.runs import RunStatus

DEFAULT_PORTS = {"http": 80, "https": 443}


class WebhookEvent(enum.StrEnum):
    """What a receiver can be told of. The values are part of the contract."""

    SUCCEEDED = "run.succeeded"
    PARTIAL = "run.partial"
    FAILED = "run.failed"
    # The first success after a failure; `run.succeeded` is told before it.
    RECOVERED = "run.recovered"


# The type of the message of a test call. Nobody subscribes to it.
TEST_EVENT = "webhook.test"

_OF_STATUS = {
    RunStatus.SUCCESS: WebhookEvent.SUCCEEDED,
    RunStatus.PARTIAL: WebhookEvent.PARTIAL,
    RunStatus.FAILED: WebhookEvent.FAILED,
}


def events_of(status: RunStatus, *, recovers: bool) -> tuple[WebhookEvent, ...]:
    """What the end of a run with that status is, in the order in which it is told; nothing for one that was cancelled.

    Args:
        status: How it ended.
        recovers: The run before it, of those that succeeded or failed, failed.
    """
    event = _OF_STATUS.get(status)
    if event is None:
        return ()
    return (event, WebhookEvent.RECOVERED) if event is WebhookEvent.SUCCEEDED and recovers else (event,)


@dataclass(frozen=True)
class Webhook:
    """A receiver as an ingestion's definition names it."""

    url: str
    name: str | None = None
    # None: all of them, also those that are to come.
    events: tuple[WebhookEvent, ...] | None = None

    @property
    def key(self) -> str:
        """What tells it from the other webhooks of its ingestion; it keeps its secret while this stays."""
        return self.name or self.url

    def wants(self, event: WebhookEvent) -> bool:
        """Whether its receiver is told of that."""
        return self.events is None or event in self.events

    def document(self) -> dict[str, Any]:
        """Its JSON in the definition, without its secret; what was not given is not in it."""
        told = {"name": self.name, "url": self.url, "events": None if self.events is None else list(self.events)}
        return {name: value for name, value in told.items() if value is not None}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Webhook:
        """What `document` gave."""
        events = document.get("events")
        wanted = None if events is None else tuple(map(WebhookEvent, events))
        return cls(document["url"], document.get("name"), wanted)


def webhooks_of(document: Mapping[str, Any]) -> tuple[Webhook, ...]:
    """The webhooks of a definition that was checked."""
    return tuple(map(Webhook.of, document.get("webhooks") or ()))


def receiver_of(url: str) -> str:
    """Host and port of an address: what is slow, down or hostile as a whole."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').rstrip('.')}:{parts.port or DEFAULT_PORTS.get(parts.scheme, 0)}"


def origin_of(url: str) -> str:
    """Scheme, host and port of an address."""
    return f"{urlsplit(url).scheme}://{receiver_of(url)}"


@dataclass(frozen=True)
class WebhookState:
    """What the service knows of a webhook beside its definition.

    Args:
        key: Which one.
        signed: It has a secret.
        disabled_at: Nothing is sent to it any more, since then.
        disabled_reason: Why.
    """

    key: str
    signed: bool
    disabled_at: datetime | None = None
    disabled_reason: str | None = None


class DeliveryState(enum.StrEnum):
    """How a message stands. The values are part of the contract."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # given up


@dataclass(frozen=True)
class Delivery:
    """One message to one receiver.

    Args:
        position: Rises with every message; for one webhook of one ingestion they are sent in this order.
        id: The same for every attempt: whoever gets it twice knows it by this.
        webhook: The key of its webhook.
        receiver: Host and port that it goes to.
        body: The message as it is sent, JSON.
        waited_s: Seconds since it was written, or was asked for again, when the row was read.
        attempts: How often it was sent since then.
    """

    position: int
    id: str
    ingestion_id: str
    webhook: str
    event: str
    run_id: str
    receiver: str
    body: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    waited_s: float = 0.0
    next_attempt_at: datetime | None = None
    last_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    last_status: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Target:
    """Where the messages of a webhook go, as of now."""

    url: str
    secret: str | None
    disabled_reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What becomes of a message after an attempt.

    Args:
        wait_s: Seconds to the next attempt, for one that stays `pending`.
        status: What the receiver answered; None: it did not.
        disable: Why nothing is sent to the webhook any more; None: it goes on.
    """

    state: DeliveryState
    wait_s: float = 0.0
    status: int | None = None
    error: str | None = None
    disable: str | None = None


class Outbox(Protocol):
    """Messages that are to be sent, or were. Every method is one short transaction, durable when it returns."""

    def due_deliveries(
        self, *, flying: Collection[int], full: Collection[str], each: int, limit: int
    ) -> list[Delivery]:
        """Messages that may be sent now, of each webhook the oldest that is pending and no other.

        One that was asked for again is nobody's predecessor, and has none.

        Args:
            flying: Positions of those that are being sent. What comes after them waits.
            full: Receivers that are to be left in peace.
            each: How many at most for one receiver.
            limit: How many at most.
        """
        ...

    def webhook_target(self, ingestion_id: str, webhook: str) -> Target | None:
        """Where its messages go; None where the ingestion has no such webhook any more.

        Raises:
            SecretKeyError: Its secret cannot be read.
        """
        ...

    def note_attempt(self, delivery: Delivery, verdict: Verdict) -> Delivery | None:
        """Keep what came of sending `delivery`; None, and nothing is kept, where it is not as it was then."""
        ...

    def list_deliveries(
        self, ingestion_id: str, *, state: DeliveryState | None, limit: int, before: int | None
    ) -> list[Delivery]:
        """A page of an ingestion's messages, newest first; one more than `limit` where there are more."""
        ...

    def redeliver(self, ingestion_id: str, delivery_id: str) -> Delivery:
        """Have a message sent once more, at once, whatever became of it; its id and body stay.

        Raises:
            NotFoundError: The ingestion has none of that id.
            WebhookOffError: Its webhook is disabled, or is no longer there.
        """
        ...

    def prune_deliveries(self, *, older_s: float) -> int:
        """Forget messages that are not pending and were written longer ago; how many."""
        ...
