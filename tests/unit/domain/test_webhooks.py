from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from app.domain.runs import RunStatus
from app.domain.webhook_messages import headers, message, signature, signing_key, told_errors
from app.domain.webhooks import Webhook, WebhookEvent, events_of, origin_of, receiver_of


@pytest.mark.parametrize(
    ("status", "recovers", "events"),
    [
        (RunStatus.SUCCESS, False, ["run.succeeded"]),
        (RunStatus.SUCCESS, True, ["run.succeeded", "run.recovered"]),
        (RunStatus.PARTIAL, True, ["run.partial"]),
        (RunStatus.FAILED, True, ["run.failed"]),
        (RunStatus.CANCELLED, True, []),
        (RunStatus.QUEUED, True, []),
        (RunStatus.RUNNING, True, []),
    ],
)
def test_what_the_end_of_a_run_is(status: RunStatus, *, recovers: bool, events: list[str]) -> None:
    assert events_of(status, recovers=recovers) == tuple(events)


def test_a_webhook_is_in_the_document_as_it_was_sent() -> None:
    one = Webhook("https://x/y", "ops", (WebhookEvent.FAILED,))
    assert Webhook.of(one.document()) == one
    assert one.document() == {"name": "ops", "url": "https://x/y", "events": ["run.failed"]}
    assert Webhook("https://x/y").document() == {"url": "https://x/y"}
    assert (one.key, Webhook("https://x/y").key) == ("ops", "https://x/y")
    assert [event for event in WebhookEvent if one.wants(event)] == [WebhookEvent.FAILED]
    assert all(Webhook("https://x/y").wants(event) for event in WebhookEvent)


def test_a_receiver_is_a_host_and_a_port_whatever_the_path() -> None:
    assert receiver_of("https://Example.com./a?b") == receiver_of("https://example.com:443/c") == "example.com:443"
    assert receiver_of("http://[::1]:80/") == "::1:80"
    assert origin_of("http://example.com:443") != origin_of("https://example.com")


def test_the_signature_is_that_of_the_specification() -> None:
    """The values of the reference implementations' own tests."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_id_time_and_body_are_signed() -> None:
    base = headers("id", 1, b"body", "secret")
    assert base.keys() == {"webhook-id", "webhook-timestamp", "webhook-signature"}
    others = [headers("ie", 1, b"body", "secret"), headers("id", 2, b"body", "secret")]
    others += [headers("id", 1, b"bodx", "secret"), headers("id", 1, b"body", "secret2")]
    assert len({one["webhook-signature"] for one in [base, *others]}) == 5
    assert headers("id", 1, b"body", None) == {"webhook-id": "id", "webhook-timestamp": "1"}


def test_a_secret_is_base64_after_its_prefix_and_a_text_otherwise() -> None:
    assert signing_key("whsec_YWJj") == b"abc"
    assert signing_key("YWJj") == b"YWJj"
    with pytest.raises(ValueError, match=r"."):
        signing_key("whsec_!")


def test_a_message_is_json_in_ascii_and_short() -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)
    text = message("run.failed", at, {"name": 'ä"\n\0'})
    assert text.isascii()
    assert json.loads(text) == {
        "type": "run.failed",
        "timestamp": "2026-01-01T12:00:00.000005Z",
        "data": {"name": 'ä"\n\0'},
    }
    errors = told_errors([{"file": "f" * 5000, "category": "auth", "message": "m" * 5000}] * 100)
    assert len(json.dumps(errors)) < 10_000
    assert errors[0]["line"] is None
