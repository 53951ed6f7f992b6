"""Webhooks over HTTP: made, tried, told of what happened, and looked at; their secrets are never seen again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.api_rigs import DatabaseRig, MemoryRig, Rig
from tests.support.receivers import Receiver, answering, receiver
from tests.support.service_process import until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BASE = "/api/v1/ingestions"
WITHIN_S = 90.0


def put(api: Rig, made: dict[str, Any], webhooks: Any, status: int = 200) -> dict[str, Any]:
    answer = api.client.put(f"{BASE}/{made['id']}", json={"webhooks": webhooks})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def deliveries(api: Rig, made: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.client.get(f"{BASE}/{made['id']}/webhook-deliveries{query}").json()["items"]
    return found


def test_webhooks_are_shown_as_they_were_sent_and_secrets_never(api: Rig) -> None:
    made = api.runnable()
    assert (made["webhooks"], made["webhook_states"]) == ([], [])
    sent: list[dict[str, Any]] = [
        {"name": "ops", "url": "http://127.0.0.1:9/x", "events": ["run.failed"]},
        {"url": "http://127.0.0.1:9/y"},
    ]
    changed = put(api, made, [{**sent[0], "secret": SECRET}, sent[1]])
    shown = [{name: value for name, value in one.items() if value is not None} for one in changed["webhooks"]]
    assert shown == sent
    signed = {one["webhook"]: one["signed"] for one in changed["webhook_states"]}
    assert signed == {"ops": True, "http://127.0.0.1:9/y": False}
    assert SECRET not in json.dumps(changed)
    assert SECRET not in api.client.get(f"{BASE}/{made['id']}").text
    assert SECRET not in api.client.get(BASE).text
    assert put(api, made, None)["webhooks"] == []


def test_what_is_no_webhook_is_refused(api: Rig) -> None:
    made = api.runnable()
    for bad, field in (
        ([{"url": "ftp://x/"}], "webhooks.0.url"),
        ([{"url": "https://u:p@x/"}], "webhooks.0.url"),
        ([{"url": "https://x/"}, {"url": "https://y/", "events": ["run.cancelled"]}], "webhooks.1.events"),
    ):
        assert put(api, made, bad, status=422)["errors"][0]["field"] == field
    for call in ("webhooks/test", "webhook-deliveries/nothing/redeliver"):
        assert api.client.post(f"{BASE}/nobody/{call}").status_code == 404
    assert api.client.post(f"{BASE}/{made['id']}/webhook-deliveries/nothing/redeliver").status_code == 404
    assert api.client.post(f"{BASE}/{made['id']}/webhooks/test").status_code == 422
    assert api.client.get(f"{BASE}/nobody/webhook-deliveries").status_code == 404
    assert api.client.get(f"{BASE}/{made['id']}/webhook-deliveries?cursor=WyJ4Il0").status_code == 422


@pytest.fixture(params=["database", "on_postgres"])
def served(request: pytest.FixtureRequest) -> DatabaseRig:
    rig: DatabaseRig = request.getfixturevalue(request.param)
    rig.clear()
    return rig


def arrived(api: Rig, made: dict[str, Any], there: Receiver, count: int) -> list[dict[str, Any]]:
    """The log, when so many have arrived and nothing is pending."""
    until(
        lambda: len(there.received) >= count and not deliveries(api, made, "?state=pending"), WITHIN_S, "they arrived"
    )
    return deliveries(api, made)


def test_a_run_is_told_and_can_be_told_again(served: DatabaseRig) -> None:
    with receiver() as there:
        made = served.runnable(webhooks=[{"name": "ops", "url": there.url(), "secret": SECRET}])
        assert [one for one in made["warnings"] if "did not resolve within" not in one] == []
        run = served.client.post(f"{BASE}/{made['id']}/run").json()
        (one,) = arrived(served, made, there, 1)
        assert (one["event"], one["run_id"], one["state"]) == ("run.succeeded", run["run_id"], "delivered")
        # More than one where an answer was slower than the sender's patience, which tells the same again.
        first = len(there.ids)
        assert (one["attempts"], one["last_status"], one["error"]) == (first, 200, None)
        assert one["payload"] == there.received[0].body
        assert set(there.ids) == {one["id"]}
        assert one["payload"]["data"]["run"]["rows"] == {"loaded": 2}
        assert served.client.get(one["payload"]["data"]["link"]).json()["id"] == run["run_id"]

        again = served.client.post(f"{BASE}/{made['id']}/webhook-deliveries/{one['id']}/redeliver")
        assert (again.status_code, again.json()["state"]) == (202, "pending")
        arrived(served, made, there, first + 1)
        assert set(there.ids) == {one["id"]}
        assert {received.message.body for received in there.received} == {there.received[0].message.body}

        put(served, made, [])
        refused = served.client.post(f"{BASE}/{made['id']}/webhook-deliveries/{one['id']}/redeliver")
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook_off")


def test_a_test_call_says_what_the_receiver_said(served: DatabaseRig) -> None:
    with receiver(answering(401, b"who are you?")) as there:
        made = served.runnable(webhooks=[{"name": "ops", "url": there.url(), "secret": SECRET}, {"url": there.url()}])
        assert any("no secret" in one for one in made["warnings"])
        assert served.client.post(f"{BASE}/{made['id']}/webhooks/test").status_code == 422
        answer = served.client.post(f"{BASE}/{made['id']}/webhooks/test", json={"webhook": "ops"})
        assert answer.status_code == 200, answer.text
        said = answer.json()
        (one,) = there.received
    assert (said["delivered"], said["status"], said["answer"], said["signed"]) == (False, 401, "who are you?", True)
    assert said["delivery_id"] == one.id
    assert one.kind == "webhook.test"
    assert one.message.header("webhook-signature").startswith("v1,")
    assert deliveries(served, made) == []


def test_a_receiver_that_is_not_there_is_warned_of_and_kept(served: DatabaseRig) -> None:
    made = served.runnable(webhooks=[{"url": "http://nowhere.invalid/", "secret": SECRET}])
    (warning,) = made["warnings"]
    assert "nowhere.invalid" in warning
    served.client.post(f"{BASE}/{made['id']}/run")
    until(lambda: any(one["attempts"] for one in deliveries(served, made)), WITHIN_S, "it was tried")
    (one,) = deliveries(served, made, "?state=pending")
    assert "does not resolve" in one["error"] or "did not answer" in one["error"]
    assert one["next_attempt_at"] > one["last_attempt_at"]


def test_the_log_comes_in_pages(memory: MemoryRig) -> None:
    from dataclasses import replace

    from app.domain.webhooks import Delivery, DeliveryState
    from tests.fakes.service import START

    memory.clear()
    made = memory.runnable()
    plain = Delivery(0, "", made["id"], "ops", "run.failed", "r", "x:1", "{}", DeliveryState.DEAD, 1, START)
    memory.api.webhooks.kept = [replace(plain, position=n, id=f"d{n}") for n in range(1, 6)]
    seen, cursor = [], ""
    while cursor is not None:
        page = memory.client.get(f"{BASE}/{made['id']}/webhook-deliveries?limit=2{cursor}").json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert seen == ["d5", "d4", "d3", "d2", "d1"]
