"""The recipe for receivers takes what we send and nothing else, and the page names what there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.domain.webhook_messages import headers
from app.domain.webhooks import WebhookEvent
from tests.docs.pages import blocks, read, rows

PAGE = "how-to/get-told-by-webhooks.md"
BODY = b'{"type":"run.failed"}'
SECRETS = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a text of one's own"]


@pytest.fixture(scope="module")
def verify() -> Callable[..., None]:
    (recipe,) = [block.text for block in blocks(read(PAGE)) if block.mark == "verify"]
    found: dict[str, Any] = {}
    exec(compile(recipe, PAGE, "exec"), found)  # noqa: S102 - what the page tells to type
    checked: Callable[..., None] = found["verify"]
    return checked


@pytest.mark.parametrize("secret", SECRETS)
def test_the_recipe_takes_what_we_sign(verify: Callable[..., None], secret: str) -> None:
    now = int(time.time())
    sent = headers("msg", now, BODY, secret)
    verify(secret, sent, BODY)
    # Of several signatures one is enough, as when a secret is changed.
    verify(secret, {**sent, "webhook-signature": f"v1,bm8= {sent['webhook-signature']}"}, BODY)


@pytest.mark.parametrize("secret", SECRETS)
def test_and_nothing_else(verify: Callable[..., None], secret: str) -> None:
    now = int(time.time())
    sent = headers("msg", now, BODY, secret)
    old = headers("msg", now - 3600, BODY, secret)
    for given, body in (
        (sent, BODY + b" "),
        ({**sent, "webhook-id": "other"}, BODY),
        ({**sent, "webhook-timestamp": str(now + 1)}, BODY),
        ({**sent, "webhook-signature": "v1,bm8="}, BODY),
        (headers("msg", now, BODY, "another secret"), BODY),
        (old, BODY),
        ({**old, "webhook-timestamp": str(now)}, BODY),
        ({name: value for name, value in sent.items() if name != "webhook-signature"}, BODY),
        ({}, BODY),
    ):
        with pytest.raises(ValueError, match="it "):
            verify(secret, given, body)


def test_every_event_is_on_the_page() -> None:
    assert set(WebhookEvent) <= rows(read(PAGE)).keys()
