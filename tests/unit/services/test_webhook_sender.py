"""The sender on real databases, with real receivers: order, isolation, patience, and what a killed one leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.domain.events import FIELDS
from app.domain.ingestions import Ingestion, IngestionStatus, Method, Trigger
from app.domain.redaction import Redactor
from app.domain.runs import Lease, Owner, RunReport, RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.domain.webhook_messages import headers
from app.domain.webhooks import Delivery, DeliveryState
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, open_service_store
from app.services.host_addresses import Resolver
from app.services.webhook_exchange import WebhookExchange
from app.services.webhook_retries import Patience
from app.services.webhook_sender import LEASE_ID, SenderSettings, WebhookSender
from tests.support.command import ROOT
from tests.support.postgres import Postgres
from tests.support.receivers import Received, answering, plain, receiver
from tests.support.service_process import until
from tests.support.webhook_process import SECRET_KEY

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WITHIN_S = 90.0
AT_ONCE = Patience(first_pause_s=0.02, longest_pause_s=0.1)


@dataclass
class Desk:
    """A database of ingestions that have webhooks."""

    url: str
    folder: Path
    redactor: Redactor = field(default_factory=Redactor)
    made: int = 0

    def __post_init__(self) -> None:
        self.store = self.open()

    def open(self) -> SqlServiceStore:
        return open_service_store(self.url, Keyring(SECRET_KEY, None, self.folder), self.redactor.learn)

    def ingestion(self, *webhooks: Mapping[str, Any], **secrets: str | None) -> Ingestion:
        self.made += 1
        new = NewIngestion(
            id=f"i{self.made}",
            tenant="default",
            name=f"n{self.made}",
            status=IngestionStatus.ACTIVE,
            table=f"local.d.t{self.made}",
            document={"source": {"path": "s3://b/"}, "webhooks": list(webhooks)},
            webhook_secrets=secrets,
        )
        return self.store.add_ingestion(new)

    def end(self, ingestion: Ingestion, *statuses: RunStatus) -> None:
        """Runs of it that end so."""
        for status in statuses:
            self.made += 1
            run = self.store.queue_run(NewRun(f"r{self.made}", ingestion.id, Trigger.MANUAL, Method.DIRECT))
            self.store.begin_run(run.id)
            self.store.end_run(RunReport(run.id, run.table, status), None, RetryPolicy(0))

    def told(self, ingestion: Ingestion) -> list[Delivery]:
        """Its messages, oldest first."""
        return self.store.list_deliveries(ingestion.id, state=None, limit=1000, before=None)[::-1]

    def states(self, ingestion: Ingestion) -> list[str]:
        return [one.state.value for one in self.told(ingestion)]


@pytest.fixture(params=["sqlite", "postgres"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    url = f"sqlite:///{tmp_path}/autoloader.db"
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.copy_database(request.getfixturevalue("migrated"))
    one = Desk(url, tmp_path)
    yield one
    one.store.dispose()


def sending(
    desk: Desk,
    done: Callable[[], object],
    *,
    timeout_s: float = 30.0,
    during: Callable[[], None] = lambda: None,
    **settings: Any,
) -> None:
    """Send what is in the outbox until `done` gives something."""

    async def send() -> None:
        exchange = WebhookExchange(lambda _host, _port, addresses: addresses, Resolver(), timeout_s=timeout_s)
        given = SenderSettings(**{"look_s": 0.02, "patience": AT_ONCE, **settings})
        sender = WebhookSender(desk.store, desk.store, this_process(), exchange, given)
        await sender.start()
        try:
            await asyncio.to_thread(during)
            await asyncio.to_thread(until, done, WITHIN_S, "the outbox is as it has to be")
        finally:
            await sender.close()

    asyncio.run(send())


def over(desk: Desk, *ingestions: Ingestion) -> Callable[[], bool]:
    return lambda: all("pending" not in desk.states(one) for one in ingestions)


def failing(
    times: int, status: int = 500, **headers: str
) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
    """A receiver that answers so to the first requests, and 200 to the others."""
    left = iter(range(times))

    async def behave(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(200) if next(left, None) is None else plain(status, b"not now", **headers))
        await writer.drain()

    return behave


S, P, F = RunStatus.SUCCESS, RunStatus.PARTIAL, RunStatus.FAILED


def test_what_happened_is_told_in_order_and_signed(desk: Desk) -> None:
    with receiver() as there:
        one = desk.ingestion({"url": there.url("/a"), "name": "ops"}, ops=SECRET)
        desk.end(one, S, F, P, S)
        sending(desk, over(desk, one))
        assert there.kinds == ["run.succeeded", "run.failed", "run.partial", "run.succeeded", "run.recovered"]
        assert there.ids == [message.id for message in desk.told(one)]
        for got, kept in zip(there.received, desk.told(one), strict=True):
            at_s = int(got.message.header("webhook-timestamp"))
            expected = headers(kept.id, at_s, got.message.body, SECRET)["webhook-signature"]
            assert got.message.header("webhook-signature") == expected
            assert got.message.body.decode() == kept.body
    assert all(m.state is DeliveryState.DELIVERED and m.last_status == 200 and m.delivered_at for m in desk.told(one))


def test_it_is_sent_again_until_it_arrives_and_the_next_one_waits(desk: Desk) -> None:
    with receiver(failing(3)) as there:
        one = desk.ingestion({"url": there.url()})
        desk.end(one, F, S)
        sending(desk, over(desk, one))
        first, second, third = [message.id for message in desk.told(one)]
        assert there.ids == [first, first, first, first, second, third]
        assert len({json.dumps(r.body) for r in there.received}) == 3
        assert there.received[0].message.header("webhook-signature") == ""
    assert [message.attempts for message in desk.told(one)] == [4, 1, 1]
    assert [message.error for message in desk.told(one)] == [None] * 3


def test_what_is_given_up_lets_the_next_one_go(desk: Desk) -> None:
    refused: list[str] = []

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        if not refused:
            refused.append(received.id)
        writer.write(plain(500) if received.id in refused else plain(204))
        await writer.drain()

    with receiver(behave) as there:
        one = desk.ingestion({"url": there.url()})
        desk.end(one, F, S)
        sending(desk, over(desk, one), patience=Patience(0.02, 0.1, give_up_s=1.0))
    assert desk.states(one) == ["dead", "delivered", "delivered"]
    dead = desk.told(one)[0]
    assert "Given up after" in (dead.error or "")
    assert dead.last_status == 500


def test_one_that_is_gone_is_disabled(desk: Desk) -> None:
    with receiver(answering(410)) as there:
        one = desk.ingestion({"url": there.url(), "name": "ops"}, ops=SECRET)
        desk.end(one, S, S)
        sending(desk, over(desk, one))
        assert len(there.received) == 1
    now = desk.store.ingestion(one.id)
    assert now is not None
    assert "410" in (now.webhook_states[0].disabled_reason or "")
    assert desk.states(one) == ["dead", "dead"]


def test_a_receiver_that_says_when_is_not_asked_before(desk: Desk) -> None:
    with receiver(failing(1, 429, Retry_After="3000")) as there:
        one = desk.ingestion({"url": there.url()})
        desk.end(one, S)
        sending(desk, lambda: there.received and desk.told(one)[0].attempts, patience=Patience(0.02, 3600))
    message = desk.told(one)[0]
    assert message.next_attempt_at is not None
    assert message.last_attempt_at is not None
    assert (message.next_attempt_at - message.last_attempt_at).total_seconds() == pytest.approx(3000, abs=1)


def test_slow_and_hostile_ones_keep_nobody_else_waiting(desk: Desk) -> None:
    """Many ingestions tell receivers that take for ever: another one's messages arrive all the same, while they do."""

    async def hold(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Hints\r\n\r\n")
        # Of the loop of the receiver that is asked: they have one each.
        await asyncio.Event().wait()

    with receiver(hold) as slow, receiver(hold) as slow2, receiver() as good:
        bad = [desk.ingestion({"url": (slow, slow2)[n % 2].url()}) for n in range(12)]
        one = desk.ingestion({"url": good.url()}, {"url": slow.url("/b")})
        for each in (*bad, one):
            desk.end(each, S)
        desk.end(one, F, S)
        wanted = ["run.succeeded", "run.failed", "run.succeeded", "run.recovered"]

        def told() -> bool:
            # What has arrived is noted later, and the end does not wait long for that.
            return good.kinds == wanted and desk.states(one).count("delivered") == len(wanted)

        sending(desk, lambda: told() and slow.open and slow2.open, timeout_s=300, at_once=8, each=2)
        assert slow.most_open <= 2
        assert slow2.most_open <= 2
    # What was broken off is sent again.
    assert desk.states(one).count("pending") == 4
    assert all(desk.states(each) == ["pending"] for each in bad)


def test_without_its_key_a_message_is_not_sent_unsigned(desk: Desk) -> None:
    with receiver() as there:
        one = desk.ingestion({"url": there.url(), "name": "ops"}, ops=SECRET)
        desk.end(one, S)
        right = desk.store
        desk.store = open_service_store(desk.url, Keyring("another key", None, desk.folder), desk.redactor.learn)
        sending(desk, lambda: desk.told(one)[0].attempts)
        assert there.received == []
        desk.store.dispose()
        desk.store = right
    message = desk.told(one)[0]
    assert message.state is DeliveryState.PENDING
    assert "cannot be signed" in (message.error or "")


def test_the_log_names_the_message_and_no_secret(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with receiver(failing(1)) as there, caplog.at_level(logging.INFO):
        one = desk.ingestion({"url": there.url("/private-path"), "name": "ops"}, ops=SECRET)
        desk.end(one, S)
        sending(desk, lambda: any(r.getMessage() == "webhook_delivered" for r in list(caplog.records)))
    said = [(r.getMessage(), getattr(r, FIELDS, {})) for r in caplog.records]
    found = [(name, fields) for name, fields in said if name.startswith("webhook_")]
    assert [name for name, _ in found] == ["webhook_failed", "webhook_delivered"]
    message = desk.told(one)[0]
    assert all(fields["delivery_id"] == message.id and fields["run_id"] == message.run_id for _, fields in found)
    assert SECRET not in str(said)
    assert "private-path" not in str(said)


# --- several processes ---------------------------------------------------------------------------------------------


def test_only_one_of_several_processes_sends(desk: Desk) -> None:
    other = Owner("another-host", 1, 0.0)
    with receiver() as there:
        one = desk.ingestion({"url": there.url()})
        desk.end(one, S)
        taken = desk.store.acquire(LEASE_ID, "another", other, 3600)
        assert isinstance(taken, Lease)
        looks = iter(range(10))

        def looked() -> bool:
            return next(looks, None) is None

        sending(desk, looked)
        assert there.received == []
        desk.store.release(taken)
        sending(desk, over(desk, one))
        assert len(there.received) == 1


@contextmanager
def sender_process(desk: Desk) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.support.webhook_process", desk.url, str(desk.folder)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_another_one_goes_on_where_one_was_killed(desk: Desk) -> None:
    """At least once, in order, whenever it is killed: while a call is at work, and after the receiver has said yes."""
    stuck = asyncio.Event()

    def holding(number: int) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
        async def behave(_received: Received, writer: asyncio.StreamWriter) -> None:
            if len(there.received) == number:
                await stuck.wait()
            writer.write(plain(200))
            await writer.drain()

        return behave

    with receiver() as there:
        one = desk.ingestion({"url": there.url(), "name": "ops"}, ops=SECRET)
        desk.end(one, *[S] * 9)
        for number in (3, 6):
            there.behave = holding(number)
            with sender_process(desk):
                until(lambda: len(there.received) >= number, WITHIN_S, f"{number} messages were sent")  # noqa: B023
        there.behave = answering(200)
        with sender_process(desk):
            until(over(desk, one), WITHIN_S, "all messages were sent")
        wanted = [message.id for message in desk.told(one)]
        assert list(dict.fromkeys(there.ids)) == wanted
        # Only what was on its way is sent twice, and not after a later one.
        assert there.ids == sorted(there.ids, key=wanted.index)
        assert len(wanted) < len(there.ids) <= len(wanted) + 2
    assert desk.states(one) == ["delivered"] * 9
