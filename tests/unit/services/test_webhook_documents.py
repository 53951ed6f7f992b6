from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidFieldError
from app.domain.webhooks import Webhook, WebhookEvent, WebhookState
from app.services.webhook_documents import CheckedWebhooks, check_webhooks, doubts, refuse_kept_secrets

URL = "https://hooks.example.com/a?b=c"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_webhooks_are_understood() -> None:
    found = check_webhooks(
        [
            {"url": URL},
            {"url": URL, "name": "ops", "events": ["run.failed", "run.failed"], "secret": SECRET},
            {"url": "http://[::1]:8080/x", "name": None, "events": None, "secret": None},
        ]
    )
    assert found.webhooks == (
        Webhook(URL),
        Webhook(URL, "ops", (WebhookEvent.FAILED,)),
        Webhook("http://[::1]:8080/x"),
    )
    assert found.secrets == {"ops": SECRET, "http://[::1]:8080/x": None}
    assert SECRET not in str(found.document)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com", "http://127.0.0.1:1/", "https://x_y.internal/", "https://nowhere.invalid/",
        "https://1.2.3.4:65535/a/b%20c?d#e", "https://xn--bcher-kva.example./",
    ],
)  # fmt: skip
def test_every_address_that_is_one_is_taken(url: str) -> None:
    assert check_webhooks([{"url": url}]).webhooks == (Webhook(url),)


@pytest.mark.parametrize(
    ("one", "field"),
    [
        ("https://x", ""),
        ({}, ".url"),
        ({"url": None}, ".url"),
        ({"url": 7}, ".url"),
        ({"url": ""}, ".url"),
        ({"url": "x"}, ".url"),
        ({"url": "ftp://x/"}, ".url"),
        ({"url": "file:///etc/passwd"}, ".url"),
        ({"url": "https://"}, ".url"),
        ({"url": "https:///x"}, ".url"),
        ({"url": "https://x:y/"}, ".url"),
        ({"url": "https://x:/"}, ".url"),
        ({"url": "https://x:0/"}, ".url"),
        ({"url": "https://x:70000/"}, ".url"),
        ({"url": "https://me:geheim@x/"}, ".url"),
        ({"url": "https://@x/"}, ".url"),
        ({"url": "https://x/a b"}, ".url"),
        ({"url": "https://x/\r\nHost: y"}, ".url"),
        ({"url": "https://[::1/"}, ".url"),
        ({"url": "https://bücher.example/"}, ".url"),
        ({"url": "https://a..b/"}, ".url"),
        ({"url": f"https://{'a' * 64}/"}, ".url"),
        ({"url": f"https://x/{'a' * 2000}"}, ".url"),
        ({"url": URL, "name": ""}, ".name"),
        ({"url": URL, "name": "a\nb"}, ".name"),
        ({"url": URL, "name": "n" * 101}, ".name"),
        ({"url": URL, "events": []}, ".events"),
        ({"url": URL, "events": "run.failed"}, ".events"),
        ({"url": URL, "events": ["run.begun"]}, ".events"),
        ({"url": URL, "events": [["run.failed"]]}, ".events"),
        ({"url": URL, "secret": ""}, ".secret"),
        ({"url": URL, "secret": 7}, ".secret"),
        ({"url": URL, "secret": "geheim" * 40}, ".secret"),
        ({"url": URL, "secret": "whsec_geheim!"}, ".secret"),
        ({"url": URL, "secret": "whsec_"}, ".secret"),
        ({"url": URL, "geheim": 1}, ".geheim"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_field(one: Any, field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        check_webhooks([{"url": "https://ok/"}, one])
    assert refused.value.field == f"webhooks.1{field}"
    assert "geheim" not in refused.value.message.replace(".geheim", "")


def test_the_list_itself_has_its_limits() -> None:
    for bad in ("https://x", {"url": URL}, 7, [{"url": f"https://x{i}/"} for i in range(11)]):
        with pytest.raises(InvalidFieldError) as refused:
            check_webhooks(bad)
        assert refused.value.field == "webhooks"
    with pytest.raises(InvalidFieldError, match="another webhook"):
        check_webhooks([{"url": URL}, {"url": URL}])
    with pytest.raises(InvalidFieldError, match="another webhook"):
        check_webhooks([{"url": URL, "name": "a"}, {"url": "https://y/", "name": "a"}])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"url": st.text(max_size=30) | st.builds("https://{}".format, st.text(max_size=20)) | JSON},
            optional={"name": JSON, "events": JSON, "secret": JSON},
        ),
        max_size=3,
    )
    | JSON
)
def test_whatever_is_sent_is_understood_or_refused(given: Any) -> None:
    with suppress(InvalidFieldError):
        assert len(check_webhooks(given).document) == len(given)


def test_a_kept_secret_does_not_sign_for_another_receiver() -> None:
    present = [Webhook("https://a/x", "ops"), Webhook("https://b/")]
    states = [WebhookState("ops", signed=True), WebhookState("https://b/", signed=False)]

    def check(**fields: Any) -> None:
        refuse_kept_secrets(present, states, check_webhooks([{"name": "ops", **fields}]))

    check(url="https://a/elsewhere")
    check(url="https://c/", secret="anew")
    check(url="https://c/", secret=None)
    for url in ("https://c/", "http://a/x", "https://a:8443/x"):
        with pytest.raises(InvalidFieldError, match="sent again") as refused:
            check(url=url)
        assert refused.value.field == "webhooks.0.secret"


def test_who_cannot_tell_who_calls_is_told_of() -> None:
    checked = check_webhooks(
        [{"url": "https://a/"}, {"url": "https://b/", "secret": SECRET}, {"url": "https://c/", "secret": "short"}]
    )
    without, short = doubts(checked)
    assert "https://a/" in without
    assert "no secret" in without
    assert "https://c/" in short
    assert len(doubts(checked, [WebhookState("https://a/", signed=True)])) == 1
    assert doubts(CheckedWebhooks()) == []
