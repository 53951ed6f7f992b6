"""The outbox of webhooks: what is written when runs end, what is due, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update

from app.domain.errors import NotFoundError, SecretKeyError, WebhookOffError
from app.domain.ingestions import Ingestion, RunRecord
from app.domain.runs import RunReport, RunStatus
from app.domain.service import RetryPolicy, RunStop
from app.domain.webhooks import Delivery, DeliveryState, Target, Verdict, WebhookState
from app.persistence.schema import webhook_deliveries
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.service_desk import DEAD, ServiceDesk, new_ingestion, queue, take

NEVER = RetryPolicy(times=0)
ONCE = RetryPolicy(times=1, delay_s=3600.0)
SOURCE = {"source": {"type": "s3", "path": "s3://b/"}}
URL, OTHER = "https://a.example/hook", "https://b.example:8443/x"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOST = RunStop("connectivity", "The source does not answer.", retryable=True)
FAIL = RunStop("auth", "The key is wrong.")


def hooks(*webhooks: Mapping[str, Any]) -> dict[str, Any]:
    return {**SOURCE, "webhooks": list(webhooks)}


@pytest.fixture
def ingestion(store: SqlServiceStore) -> Ingestion:
    new = new_ingestion(name="Orders", document=hooks({"url": URL, "name": "ops"}), webhook_secrets={"ops": SECRET})
    return store.add_ingestion(new)


def begun(store: SqlServiceStore, ingestion: Ingestion, *, dead: bool = False) -> RunRecord:
    run = queue(store, ingestion)
    lease = take(store, run, DEAD if dead else None)
    at_work = store.begin_run(run.id)
    assert at_work is not None
    if not dead:
        store.release(lease)
    return at_work


def ended(store: SqlServiceStore, ingestion: Ingestion, stop: RunStop | None = None, **counts: int) -> RunRecord:
    run = begun(store, ingestion)
    report = RunReport(run_id=run.id, table=run.table, **counts)  # type: ignore[arg-type]
    report.settle()
    if stop is not None:
        report.status = RunStatus.FAILED
    return store.end_run(report, stop, NEVER)


def told(store: SqlServiceStore, ingestion: Ingestion) -> list[Delivery]:
    """All messages, oldest first."""
    return store.list_deliveries(ingestion.id, state=None, limit=1000, before=None)[::-1]


def kinds(store: SqlServiceStore, ingestion: Ingestion) -> list[str]:
    return [one.event for one in told(store, ingestion)]


def due(store: SqlServiceStore, **more: Any) -> list[Delivery]:
    return store.due_deliveries(**{"flying": [], "full": [], "each": 100, "limit": 100, **more})


def failed(wait_s: float = 0.0, status: int | None = 500) -> Verdict:
    return Verdict(DeliveryState.PENDING, wait_s=wait_s, status=status, error="The receiver answered 500.")


DELIVERED = Verdict(DeliveryState.DELIVERED, status=200)


# --- written with the run's end ------------------------------------------------------------------------------------


def test_every_end_of_a_run_is_told_and_nothing_else(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion, files_loaded=1)
    ended(store, ingestion, files_loaded=1, files_failed=1)
    ended(store, ingestion, FAIL)
    ended(store, ingestion, files_failed=1)
    store.cancel_queued(queue(store, ingestion).id, "enough")
    store.request_cancel(queue(store, ingestion).id)
    ended(store, ingestion, files_loaded=1, files_failed=1)
    ended(store, ingestion)
    ended(store, ingestion)
    assert kinds(store, ingestion) == [
        "run.succeeded",
        "run.partial",
        "run.failed",
        "run.failed",
        "run.partial",
        "run.succeeded",
        "run.recovered",
        "run.succeeded",
    ]


def test_a_run_that_goes_on_is_not_told_before_its_end(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    report = RunReport(run.id, run.table, RunStatus.FAILED)
    again = store.end_run(report, LOST, RetryPolicy(times=1, delay_s=0))
    assert again.status is RunStatus.QUEUED
    assert told(store, ingestion) == []
    take(store, run)
    store.begin_run(run.id)
    store.end_run(report, LOST, RetryPolicy(times=1, delay_s=0))
    store.end_run(report, LOST, NEVER)
    assert kinds(store, ingestion) == ["run.failed"]


def test_a_run_whose_process_died_is_told(store: SqlServiceStore, ingestion: Ingestion) -> None:
    begun(store, ingestion, dead=True)
    (settled,) = store.settle_dead_runs(ONCE, ingestion.id)
    assert settled.status is RunStatus.QUEUED
    assert told(store, ingestion) == []
    take(store, settled, DEAD)
    store.begin_run(settled.id)
    store.settle_dead_runs(ONCE, ingestion.id)
    store.settle_dead_runs(ONCE, ingestion.id)
    (only,) = told(store, ingestion)
    assert json.loads(only.body)["data"]["run"]["errors"][0]["category"] == "run_died"


def test_so_is_one_that_never_began_and_one_that_was_taken_over(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    store.claim_run(run.id, for_s=60)
    store.note_not_begun(run.id, ONCE)
    assert told(store, ingestion) == []
    with store._write() as connection:
        connection.execute(text("update runs set next_attempt_at = null"))
    store.claim_run(run.id, for_s=60)
    store.note_not_begun(run.id, NEVER)
    assert kinds(store, ingestion) == ["run.failed"]
    begun(store, ingestion, dead=True)
    # Another run takes the lease before anybody has settled the dead one.
    store.acquire(ingestion.id, "another", replace(DEAD, pid=DEAD.pid), 60)
    assert kinds(store, ingestion) == ["run.failed", "run.failed"]
    assert "took over" in json.loads(told(store, ingestion)[-1].body)["data"]["run"]["errors"][0]["message"]


def test_what_does_not_commit_is_not_told(store: SqlServiceStore, ingestion: Ingestion) -> None:
    """The message is in the transaction that ends the run: neither is without the other."""
    run = begun(store, ingestion)
    with store._write() as connection:
        connection.execute(text("alter table webhook_deliveries rename column body to broken"))
    report = RunReport(run.id, run.table, RunStatus.SUCCESS)
    with pytest.raises(Exception, match="body"):
        store.end_run(report, None, NEVER)
    now = store.run(run.id)
    assert now is not None
    assert now.status is RunStatus.RUNNING
    with store._write() as connection:
        connection.execute(text("alter table webhook_deliveries rename column broken to body"))
    store.end_run(report, None, NEVER)
    assert kinds(store, ingestion) == ["run.succeeded"]


def test_a_message_says_what_the_run_was(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = ended(store, ingestion, files_loaded=2, rows_loaded=2000, stored_bytes=99)
    (one,) = told(store, ingestion)
    body = json.loads(one.body)
    assert (one.webhook, one.receiver, one.run_id) == ("ops", "a.example:443", run.id)
    assert body["type"] == one.event == "run.succeeded"
    assert run.ended_at is not None
    assert datetime.fromisoformat(body["timestamp"]) == run.ended_at
    assert body["data"]["ingestion"] == {"id": ingestion.id, "name": "Orders"}
    assert body["data"]["link"] == f"/api/v1/ingestions/{ingestion.id}/runs/{run.id}"
    shown = body["data"]["run"]
    assert (shown["status"], shown["table"], shown["trigger"]) == ("success", "local.db.t", "manual")
    assert (shown["files"]["loaded"], shown["rows"], shown["bytes"]) == (2, {"loaded": 2000}, 99)
    assert SECRET not in one.body


def test_each_webhook_gets_what_it_wants(store: SqlServiceStore) -> None:
    made = store.add_ingestion(
        new_ingestion(document=hooks({"url": URL, "events": ["run.recovered", "run.failed"]}, {"url": OTHER}))
    )
    ended(store, made, FAIL)
    ended(store, made)
    found = [(one.webhook, one.event) for one in told(store, made)]
    assert found == [
        (URL, "run.failed"),
        (OTHER, "run.failed"),
        (OTHER, "run.succeeded"),
        (URL, "run.recovered"),
        (OTHER, "run.recovered"),
    ]
    assert len({one.id for one in told(store, made)}) == 5


def test_without_webhooks_nothing_is_written(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    ended(store, made)
    assert told(store, made) == []


# --- the webhooks of an ingestion ----------------------------------------------------------------------------------


def change(
    store: SqlServiceStore, ingestion: Ingestion, *webhooks: Mapping[str, Any], **secrets: str | None
) -> Ingestion:
    document = hooks(*webhooks) if webhooks else SOURCE
    present = store.ingestion(ingestion.id)
    assert present is not None
    return store.change_ingestion(replace(present, document=document), None, present.version, webhook_secrets=secrets)


def target(store: SqlServiceStore, ingestion: Ingestion, webhook: str = "ops") -> Target | None:
    return store.webhook_target(ingestion.id, webhook)


def test_a_secret_is_kept_changed_and_removed(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ops = {"url": URL, "name": "ops"}
    assert ingestion.webhook_states == (WebhookState("ops", signed=True),)
    assert target(store, ingestion) == Target(URL, SECRET)
    changed = change(store, ingestion, {**ops, "url": URL + "2", "events": ["run.failed"]}, {"url": OTHER})
    assert changed.webhook_states == (WebhookState(OTHER, signed=False), WebhookState("ops", signed=True))
    assert target(store, ingestion) == Target(URL + "2", SECRET)
    assert target(store, ingestion, OTHER) == Target(OTHER, None)
    change(store, ingestion, ops, ops="another secret")
    assert target(store, ingestion) == Target(URL, "another secret")
    assert change(store, ingestion, ops, ops=None).webhook_states == (WebhookState("ops", signed=False),)
    assert target(store, ingestion) == Target(URL, None)
    present = store.ingestion(ingestion.id)
    assert present is not None
    same = store.change_ingestion(replace(present, name="Other"), None, present.version)
    assert same.webhook_states == (WebhookState("ops", signed=False),)
    assert change(store, ingestion).webhook_states == ()
    assert target(store, ingestion) is None


def test_states_are_told_wherever_ingestions_are(store: SqlServiceStore, ingestion: Ingestion) -> None:
    from app.domain.service import IngestionQuery

    (listed,) = store.list_ingestions(IngestionQuery("default"))
    found = store.ingestion(ingestion.id)
    assert found is not None
    assert listed.webhook_states == found.webhook_states == ingestion.webhook_states


def test_a_secret_stands_nowhere_in_the_database(
    store: SqlServiceStore, ingestion: Ingestion, service: ServiceDesk
) -> None:
    ended(store, ingestion)
    with store._read() as connection:
        for table in ("ingestions", "secrets", "webhooks", "webhook_deliveries", "runs"):
            for row in connection.execute(text(f"select * from {table}")):
                assert SECRET not in repr([bytes(v) if isinstance(v, memoryview) else v for v in row])
                assert b"MfKQ9r8G" not in b"".join(bytes(v) for v in row if isinstance(v, bytes | memoryview))
    assert service.redactor.text(f"x {SECRET} y") == "x *** y"


def test_what_is_copied_to_another_webhook_is_refused(store: SqlServiceStore, ingestion: Ingestion) -> None:
    change(store, ingestion, {"url": URL, "name": "ops"}, {"url": URL, "name": "ops2"}, ops2="theirs, not ours")
    columns = ("ciphertext", "nonce", "wrapped_key", "key_id")
    with store._write() as connection:
        for column in columns:
            connection.execute(
                text(f"update webhooks set {column} = (select {column} from webhooks where webhook = 'ops2')")
            )
    with pytest.raises(SecretKeyError):
        target(store, ingestion)


def test_secrets_are_put_under_a_new_key(store: SqlServiceStore, ingestion: Ingestion, service: ServiceDesk) -> None:
    change(
        store,
        ingestion,
        {"url": URL, "name": "ops"},
        {"url": OTHER, "name": "b"},
        {"url": OTHER},
        b="of the second one",
    )
    store.add_ingestion(new_ingestion(credentials={"aws_access_key_id": "x" * 20}))
    later = replace(service, secret_key="another passphrase", previous=service.secret_key).open()
    assert later.rewrap_secrets() == 3
    assert later.rewrap_secrets() == 0
    later.dispose()
    without = replace(service, secret_key="another passphrase").open()
    assert target(without, ingestion) == Target(URL, SECRET)
    assert target(without, ingestion, "b") == Target(OTHER, "of the second one")
    without.dispose()
    lost = replace(service, secret_key="a third one").open()
    with pytest.raises(SecretKeyError):
        target(lost, ingestion)
    lost.dispose()


def test_with_an_ingestion_its_webhooks_and_messages_go(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion)
    store.bury_ingestion(ingestion.id, None)
    assert due(store) == []
    assert target(store, ingestion) is None
    store.remove_ingestion(ingestion.id)
    assert store.ingestion(ingestion.id, deleted=True) is None


# --- what is due ---------------------------------------------------------------------------------------------------


def test_a_later_message_waits_for_the_earlier_one(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for _ in range(3):
        ended(store, ingestion)
    first, second, third = told(store, ingestion)
    (only,) = due(store)
    assert only.id == first.id
    assert due(store, flying=[first.position]) == []
    noted = store.note_attempt(only, failed(wait_s=3600))
    assert noted is not None
    assert (noted.state, noted.attempts, noted.last_status) == (DeliveryState.PENDING, 1, 500)
    assert noted.next_attempt_at is not None
    assert noted.last_attempt_at is not None
    assert timedelta(minutes=59) < noted.next_attempt_at - noted.last_attempt_at < timedelta(minutes=61)
    assert due(store) == []
    store.note_attempt(noted, DELIVERED)
    assert [one.id for one in due(store)] == [second.id]
    store.note_attempt(second, Verdict(DeliveryState.DEAD, error="Given up."))
    assert [one.id for one in due(store)] == [third.id]
    states = [one.state.value for one in told(store, ingestion)]
    assert states == ["delivered", "dead", "pending"]


def test_webhooks_and_ingestions_do_not_wait_for_each_other(store: SqlServiceStore) -> None:
    made = [store.add_ingestion(new_ingestion(document=hooks({"url": URL}, {"url": OTHER}))) for _ in range(2)]
    for one in made:
        ended(store, one)
        ended(store, one)
    found = due(store)
    assert {(one.ingestion_id, one.webhook) for one in found} == {(m.id, url) for m in made for url in (URL, OTHER)}
    assert len(found) == 4


def test_a_receiver_gets_a_few_at_a_time_and_keeps_nobody_waiting(store: SqlServiceStore) -> None:
    """A hundred ingestions that tell one receiver do not stand before one that tells another."""
    many = [store.add_ingestion(new_ingestion(document=hooks({"url": URL}))) for _ in range(6)]
    for one in many:
        ended(store, one)
    last = store.add_ingestion(new_ingestion(document=hooks({"url": OTHER})))
    ended(store, last)
    assert [one.webhook for one in due(store, each=2)].count(URL) == 2
    assert OTHER in [one.webhook for one in due(store, each=2)]
    assert OTHER in [one.webhook for one in due(store, limit=2)]
    assert [one.webhook for one in due(store, full=["a.example:443"])] == [OTHER]


def test_what_came_of_an_attempt_counts_once(store: SqlServiceStore, ingestion: Ingestion) -> None:
    """A sender that slept, and woke when another one had gone on, changes nothing."""
    ended(store, ingestion)
    (one,) = due(store)
    noted = store.note_attempt(one, failed())
    assert noted is not None
    assert store.note_attempt(one, DELIVERED) is None
    assert store.note_attempt(noted, DELIVERED) is not None
    assert store.note_attempt(noted, failed()) is None
    assert [one.state for one in told(store, ingestion)] == [DeliveryState.DELIVERED]


def test_messages_go_where_their_webhook_goes_now(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion)
    change(store, ingestion, {"url": OTHER, "name": "ops"})
    assert [one.receiver for one in due(store)] == ["b.example:8443"]
    change(store, ingestion, {"url": OTHER, "name": "another"})
    (gone,) = told(store, ingestion)
    assert (gone.state, gone.error) == (DeliveryState.DEAD, "The webhook was removed from the ingestion.")
    assert due(store) == []


def test_a_webhook_that_is_gone_is_disabled_until_it_is_sent_again(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    ended(store, ingestion)
    ended(store, ingestion)
    gone = Verdict(DeliveryState.DEAD, status=410, error="Gone.", disable="The receiver answered 410.")
    noted = store.note_attempt(due(store)[0], gone)
    assert noted is not None
    assert noted.state is DeliveryState.DEAD
    now = store.ingestion(ingestion.id)
    assert now is not None
    assert now.version == ingestion.version + 1
    (state,) = now.webhook_states
    assert (state.signed, state.disabled_reason) == (True, "The receiver answered 410.")
    assert state.disabled_at is not None
    ended(store, ingestion)
    assert [one.state.value for one in told(store, ingestion)] == ["dead", "dead"]
    disabled = target(store, ingestion)
    assert disabled is not None
    assert disabled.disabled_reason
    with pytest.raises(WebhookOffError, match="410"):
        store.redeliver(ingestion.id, noted.id)
    enabled = change(store, ingestion, {"url": URL, "name": "ops"})
    assert enabled.webhook_states == (WebhookState("ops", signed=True),)
    ended(store, ingestion)
    assert len(due(store)) == 1


# --- once more -----------------------------------------------------------------------------------------------------


def test_a_message_is_sent_once_more_and_nothing_newer_waits_for_it(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    ended(store, ingestion)
    store.note_attempt(due(store)[0], DELIVERED)
    ended(store, ingestion)
    first, second = told(store, ingestion)
    again = store.redeliver(ingestion.id, first.id)
    assert (again.id, again.body, again.attempts, again.state) == (first.id, first.body, 0, DeliveryState.PENDING)
    assert again.delivered_at is None
    assert {one.id for one in due(store)} == {first.id, second.id}
    noted = store.note_attempt(again, failed(wait_s=3600))
    assert noted is not None
    assert [one.id for one in due(store)] == [second.id]
    # One that waits for its next attempt is due at once.
    store.redeliver(ingestion.id, first.id)
    assert {one.id for one in due(store)} == {first.id, second.id}


def test_one_that_is_pending_keeps_its_place(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion)
    ended(store, ingestion)
    first, second = told(store, ingestion)
    store.redeliver(ingestion.id, second.id)
    assert [one.id for one in due(store)] == [first.id]


def test_only_a_message_of_the_ingestion_is_sent_again(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion)
    (one,) = told(store, ingestion)
    other = store.add_ingestion(new_ingestion())
    for ingestion_id, delivery_id in ((other.id, one.id), (ingestion.id, "nothing")):
        with pytest.raises(NotFoundError):
            store.redeliver(ingestion_id, delivery_id)
    change(store, ingestion)
    with pytest.raises(WebhookOffError, match="no such webhook"):
        store.redeliver(ingestion.id, one.id)


# --- what is shown -------------------------------------------------------------------------------------------------


def test_messages_are_shown_newest_first_in_pages(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for _ in range(5):
        ended(store, ingestion)
    store.note_attempt(due(store)[0], DELIVERED)
    everything = told(store, ingestion)[::-1]
    page = store.list_deliveries(ingestion.id, state=None, limit=2, before=None)
    assert page == [replace(one, waited_s=page[i].waited_s) for i, one in enumerate(everything[:3])]
    rest = store.list_deliveries(ingestion.id, state=None, limit=9, before=page[1].position)
    assert [one.id for one in rest] == [one.id for one in everything[2:]]
    delivered = store.list_deliveries(ingestion.id, state=DeliveryState.DELIVERED, limit=9, before=None)
    assert [one.id for one in delivered] == [everything[-1].id]


def test_old_messages_that_are_over_are_forgotten(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for _ in range(3):
        ended(store, ingestion)
    store.note_attempt(due(store)[0], DELIVERED)
    store.note_attempt(due(store)[0], Verdict(DeliveryState.DEAD, error="x"))
    assert store.prune_deliveries(older_s=3600) == 0
    with store._write() as connection:
        connection.execute(update(webhook_deliveries).values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert store.prune_deliveries(older_s=3600) == 2
    (left,) = told(store, ingestion)
    assert left.state is DeliveryState.PENDING
    # A position is never given twice.
    last = left.position
    with store._write() as connection:
        connection.execute(text("delete from webhook_deliveries"))
    ended(store, ingestion)
    assert told(store, ingestion)[0].position > last


def test_a_change_and_a_receiver_that_is_gone_do_not_wait_for_each_other(
    service: ServiceDesk, store: SqlServiceStore, ingestion: Ingestion
) -> None:
    gone = Verdict(DeliveryState.DEAD, status=410, error="Gone.", disable="The receiver answered 410.")
    other = service.open()
    try:
        for _ in range(10):
            change(store, ingestion, {"url": URL, "name": "ops"})
            ended(store, ingestion)
            (one,) = due(store)
            with ThreadPoolExecutor(2) as pool:
                disabling = pool.submit(store.note_attempt, one, gone)
                changing = pool.submit(_change_until, other, ingestion)
                disabling.result(60)
                changing.result(60)
    finally:
        other.dispose()


def _change_until(store: SqlServiceStore, ingestion: Ingestion) -> None:
    from app.domain.errors import VersionMismatchError

    for _ in range(3):
        try:
            change(store, ingestion, {"url": OTHER, "name": "ops"})
        except VersionMismatchError:
            continue


def test_a_great_many_that_wait_are_looked_through_by_index(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended(store, ingestion)
    with store._write() as connection:
        row = dict(connection.execute(select(webhook_deliveries)).one()._mapping)
        del row["position"]
        for n in range(20):
            rows = [{**row, "id": f"x{n}-{i}", "ingestion_id": f"i{n}"} for i in range(50)]
            connection.execute(insert(webhook_deliveries), rows)
    found = due(store, each=100, limit=100)
    assert sorted(one.ingestion_id for one in found) == sorted([ingestion.id, *(f"i{n}" for n in range(20))])


@pytest.fixture(autouse=True)
def _nothing_is_left(store: SqlServiceStore) -> Iterator[None]:
    """Positions rise with time, whatever a test did."""
    yield
    with store._read() as connection:
        rows = connection.execute(
            select(webhook_deliveries.c.created_at).order_by(webhook_deliveries.c.position)
        ).scalars()
        times = [time for time in rows if time.year > 2020]
    assert times == sorted(times)
