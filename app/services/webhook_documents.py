"""The field `webhooks` of an ingestion's document: whether it is right, and which secrets it changes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from app.domain.errors import InvalidFieldError
from app.domain.webhook_messages import SECRET_PREFIX, signing_key
from app.domain.webhooks import DEFAULT_PORTS, Webhook, WebhookEvent, WebhookState, origin_of

FIELD = "webhooks"
MOST = 10
LONGEST_URL = 2_000
LONGEST_NAME = 100
LONGEST_SECRET = 200
# What the specification of the signature asks of a key.
SHORTEST_KEY_BYTES = 24
_FIELDS = ("url", "name", "events", "secret")
# An address as it goes over the wire: other characters have to be escaped by whoever sends it.
_ADDRESS = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]*)(?:\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True)
class CheckedWebhooks:
    """Webhooks that were understood.

    Args:
        secrets: Webhook → its secret, of those for which one was given; None where it is to have none.
    """

    webhooks: tuple[Webhook, ...] = ()
    secrets: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def document(self) -> list[dict[str, Any]]:
        """Their JSON without secrets."""
        return [one.document() for one in self.webhooks]


def check_webhooks(given: Any) -> CheckedWebhooks:  # noqa: ANN401 - whatever JSON holds
    """Understand the list. Secrets are never repeated, whatever is wrong with them.

    Raises:
        InvalidFieldError: Something in it has no meaning; `field` is its path.
    """
    if not isinstance(given, list):
        raise InvalidFieldError(f"{FIELD} must be a list of objects.", field=FIELD)
    if len(given) > MOST:
        raise InvalidFieldError(f"{FIELD} has more than {MOST} webhooks.", field=FIELD)
    found: dict[str, Webhook] = {}
    secrets: dict[str, str | None] = {}
    for number, one in enumerate(given):
        path = f"{FIELD}.{number}"
        webhook = _webhook(one, path)
        if webhook.key in found:
            what = "name" if webhook.name else "url"
            raise InvalidFieldError(
                f"{path}.{what} is that of another webhook of the ingestion.",
                remedy="Give each of them a name of its own.",
                field=f"{path}.{what}",
            )
        found[webhook.key] = webhook
        if "secret" in one:
            secrets[webhook.key] = _secret(one["secret"], f"{path}.secret")
    return CheckedWebhooks(tuple(found.values()), secrets)


def _webhook(given: Any, path: str) -> Webhook:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(given, Mapping):
        raise InvalidFieldError(f"{path} must be an object.", field=path)
    for name in given:
        if name not in _FIELDS:
            shown = f"{path}.{name}"[:LONGEST_NAME]
            raise InvalidFieldError(f"{shown} is no field of a webhook.", field=shown)
    return Webhook(_url(given.get("url"), f"{path}.url"), _name(given.get("name"), path), _events(given, path))


def _url(given: Any, path: str) -> str:  # noqa: ANN401 - whatever JSON holds
    if given is None:
        raise InvalidFieldError(f"{path} is missing.", field=path)
    if not isinstance(given, str) or len(given) > LONGEST_URL or not _ADDRESS.fullmatch(given):
        raise _no_address(path)
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        raise _no_address(path) from None
    if parts.scheme not in DEFAULT_PORTS:
        raise InvalidFieldError(f"{path} must begin with https:// or http://.", field=path)
    if "@" in parts.netloc:
        raise InvalidFieldError(
            f"{path} holds a user or a password.",
            remedy="Leave them out, and check the signature instead.",
            field=path,
        )
    if not _is_host(parts) or port == 0 or parts.netloc.endswith(":"):
        raise _no_address(path)
    return given


def _is_host(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    # What stands in brackets was checked when it was parted.
    return ":" in host or (_HOST.fullmatch(host) is not None and all(len(one) < 64 for one in host.split(".")))  # noqa: PLR2004 - what a name's part may have


def _no_address(path: str) -> InvalidFieldError:
    return InvalidFieldError(
        f"{path} is no address.",
        remedy=f"Use https://host/path, at most {LONGEST_URL} characters, others than ASCII escaped.",
        field=path,
    )


def _name(given: Any, path: str) -> str | None:  # noqa: ANN401 - whatever JSON holds
    if given is None:
        return None
    if not isinstance(given, str) or not given.strip() or len(given) > LONGEST_NAME or not given.isprintable():
        raise InvalidFieldError(
            f"{path}.name must have 1 to {LONGEST_NAME} characters that can be printed.", field=f"{path}.name"
        )
    return given


def _events(given: Mapping[str, Any], path: str) -> tuple[WebhookEvent, ...] | None:
    events = given.get("events")
    if events is None:
        return None
    known = [event.value for event in WebhookEvent]
    if not isinstance(events, list) or not events or any(event not in known for event in events):
        raise InvalidFieldError(
            f"{path}.events must be a list of events.", remedy=f"Use {', '.join(known)}.", field=f"{path}.events"
        )
    return tuple(WebhookEvent(event) for event in dict.fromkeys(events))


def _secret(given: Any, path: str) -> str | None:  # noqa: ANN401 - whatever JSON holds
    if given is None:
        return None
    if not isinstance(given, str) or not 0 < len(given) <= LONGEST_SECRET or "\0" in given:
        raise InvalidFieldError(f"{path} must be a text of 1 to {LONGEST_SECRET} characters.", field=path)
    try:
        key = signing_key(given)
    except ValueError:
        key = b""
    if not key:
        raise InvalidFieldError(f"{path} has no base64 after {SECRET_PREFIX}.", field=path)
    return given


def refuse_kept_secrets(present: Sequence[Webhook], states: Sequence[WebhookState], checked: CheckedWebhooks) -> None:
    """Refuse to sign for another receiver with a secret that was given for the one of before.

    Args:
        present: The webhooks as they are.
        states: What is known of them.
        checked: As they are to be.

    Raises:
        InvalidFieldError: A webhook has another address, and its secret was not sent again.
    """
    signed = {state.key for state in states if state.signed}
    origins = {one.key: origin_of(one.url) for one in present if one.key in signed}
    for number, one in enumerate(checked.webhooks):
        before = origins.get(one.key)
        if before not in (None, origin_of(one.url)) and one.key not in checked.secrets:
            path = f"{FIELD}.{number}.secret"
            raise InvalidFieldError(
                f"{path} is missing: another receiver needs the secret to be sent again, or null.", field=path
            )


def doubts(checked: CheckedWebhooks, states: Sequence[WebhookState] = ()) -> list[str]:
    """What can be kept, and whoever sent it should know.

    Args:
        checked: The webhooks as they are to be.
        states: What is known of them as they were.
    """
    kept = {state.key for state in states if state.signed} - checked.secrets.keys()
    found = []
    for one in checked.webhooks:
        secret = checked.secrets.get(one.key)
        if secret is None and one.key not in kept:
            found.append(f"The webhook {one.key!r} has no secret: its receiver cannot tell who calls.")
        elif secret is not None and len(signing_key(secret)) < SHORTEST_KEY_BYTES:
            found.append(f"The secret of the webhook {one.key!r} has less than {SHORTEST_KEY_BYTES} bytes.")
    return found
