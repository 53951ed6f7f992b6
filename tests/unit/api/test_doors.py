"""With tokens: who is let in, what the others are told, and what stays of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.api import event_stream
from app.domain.access import Role, new_token
from app.domain.errors import LedgerUnreachableError
from app.domain.events import FIELDS
from tests.support.api_in_memory import Api
from tests.support.service_process import until
from tests.unit.api.test_edges import problem

PATH = "/api/v1/ingestions"
ADDRESSES = ["/health", "/api/v1/health", PATH, f"{PATH}/nobody", "/docs", "/openapi.json", "/nothing"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def denials(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(one, FIELDS) for one in caplog.records if one.message == "authentication_failed"]


@pytest.mark.parametrize("path", ADDRESSES)
def test_with_tokens_nobody_is_answered_without_one_on_the_machine_neither(
    api: Api, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    api.tokens.made()
    answer = api.client.get(path)
    # Who only looks whether the service is there would fill the log.
    assert [one["path"] for one in denials(caplog)] == ([] if path.endswith("/health") else [path])
    told = problem(answer, 401, "token_required")
    assert answer.headers["www-authenticate"] == 'Bearer realm="autoloader"'
    assert "autoloader tokens create" in told["remedy"]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/api/v1/health/live", "/api/v1/health/ready"])
def test_probes_need_none(api: Api, path: str) -> None:
    api.tokens.made()
    assert api.client.get(path, headers={"Host": "example.com"}).status_code == 200
    assert api.client.get(path, headers=bearer("nonsense")).status_code == 200


def test_a_bad_token_is_noted_wherever_it_is_sent(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.tokens.made()
    api.client.get("/health", headers=bearer("nonsense"))
    assert [one["path"] for one in denials(caplog)] == ["/health"]


def test_a_good_token_is_answered_from_wherever_it_comes(api: Api) -> None:
    token = api.tokens.made()
    headers = {"Host": "autoloader.example.com", "X-Forwarded-For": "1.2.3.4", "Origin": "https://example.com"}
    assert api.client.get(PATH, headers=bearer(token) | headers).status_code == 200
    assert api.client.get(PATH, headers={"authorization": f"bearer   {token}"}).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        ["Bearer"],
        ["Bearer nonsense"],
        ["Basic dXNlcjpwYXNz"],
        ["{token}"],
        ["Token {token}"],
        ["Bearer {token} x"],
        ["Bearer {token},"],
        ["Bearer {token}x"],
        ["Bearer {token}", "Bearer {token}"],
        ["Bearer {other}"],
    ],
)
def test_what_is_no_good_token_is_not(api: Api, sent: list[str], caplog: pytest.LogCaptureFixture) -> None:
    token, other = api.tokens.made(), new_token()
    headers = [("Authorization", one.format(token=token, other=other)) for one in sent]
    answer = api.client.get(PATH, headers=headers)
    problem(answer, 401, "token_invalid")
    assert answer.headers["www-authenticate"] == 'Bearer realm="autoloader", error="invalid_token"'
    assert [(one["reason"], one["access_id"], one["path"]) for one in denials(caplog)] == [("unknown", None, PATH)]
    assert token not in caplog.text + answer.text
    assert other not in caplog.text + answer.text


def test_a_token_in_the_address_is_none(api: Api) -> None:
    token = api.tokens.made()
    problem(api.client.get(f"{PATH}?token={token}"), 401, "token_required")
    problem(api.client.get(f"{PATH}?access_token={token}", headers=bearer(token)), 422, "invalid_field")


def test_a_token_that_was_revoked_is_good_for_no_request_after(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    token = api.tokens.made()
    assert api.client.get(PATH, headers=bearer(token)).status_code == 200
    revoked = api.tokens.revoke_token(next(iter(api.tokens.kept.values())).id)
    told = problem(api.client.get(PATH, headers=bearer(token)), 401, "token_invalid")
    assert "revoked" in told["detail"]
    # And nothing falls back to the machine itself.
    problem(api.client.get(PATH), 401, "token_required")
    assert [(one["reason"], one["access_id"]) for one in denials(caplog)] == [
        ("revoked", revoked.id),
        ("missing", None),
    ]


def test_a_token_whose_time_is_over_is_none(api: Api) -> None:
    now = datetime.now(UTC)
    over, good = (api.tokens.made(expires_at=now + timedelta(hours=hours)) for hours in (-1, 1))
    assert "time is over" in problem(api.client.get(PATH, headers=bearer(over)), 401, "token_invalid")["detail"]
    assert api.client.get(PATH, headers=bearer(good)).status_code == 200


def test_a_role_that_is_too_low_is_told_which_is_needed(api: Api) -> None:
    token = api.tokens.made(Role.VIEWER)
    told = problem(api.client.post(PATH, json={}, headers=bearer(token)), 403, "role_too_low")
    assert told["required_role"] == "operator"
    assert "operator" in told["detail"]
    assert "viewer" in told["detail"]
    assert "`autoloader tokens create --role operator`" in told["remedy"]


def test_when_a_token_was_used_is_kept_once_a_minute(api: Api) -> None:
    token = api.tokens.made()

    def used() -> datetime | None:
        return next(iter(api.tokens.kept.values())).last_used_at

    api.client.get(PATH, headers=bearer(token))
    until(used, 30, "its use is kept")
    first = used()
    api.client.get(PATH, headers=bearer(token))
    api.client.get(PATH, headers=bearer(token))
    assert used() == first


def test_nothing_is_done_for_a_request_that_is_not_let_in(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api.tokens.made()
    body = {"name": "n", "source": {"path": "s3://b/"}, "destination": {"database": "d", "table": "t"}}
    problem(api.client.post(PATH, json=body), 401, "token_required")
    assert api.ingestions.kept == {}
    assert api.ingestions.calls == 0


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.json()["code"] == "ledger_unreachable"


def test_where_the_database_does_not_say_nobody_is_let_in(api: Api) -> None:
    """Whether there are tokens by now, nobody knows."""
    assert api.client.get(PATH).status_code == 200
    api.tokens.failure = LedgerUnreachableError("It is away.")
    assert refused(api.client.get(PATH))
    # How it is can be told without a database, to the machine itself.
    assert api.client.get("/health").status_code == 200
    problem(api.client.get("/health", headers={"Host": "example.com"}), 401, "tokens_required")


def test_so_with_tokens_for_health_too(api: Api) -> None:
    token = api.tokens.made()
    assert api.client.get("/health", headers=bearer(token)).status_code == 200
    api.tokens.failure = LedgerUnreachableError("It is away.")
    assert refused(api.client.get("/health"))
    assert refused(api.client.get("/health", headers=bearer(token)))
    assert api.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("mode", ["open", "by token"])
def test_whoever_reads_events_is_sent_away_when_he_may_no_more(
    api: Api, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """His token is revoked; or there was none, and now there is one."""
    monkeypatch.setattr(event_stream, "RECHECK_S", 0.05)
    headers = {} if mode == "open" else {"Authorization": f"Bearer {api.tokens.made()}"}
    with api.client.stream("GET", "/api/v1/events", headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        if mode == "open":
            api.tokens.made()
        else:
            api.tokens.revoke_token(next(iter(api.tokens.kept.values())).id)
        # It ends: without an end this would wait for ever.
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
