"""What the three kinds of object store have in common to be opened by, and the words in which each is spoken of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from app.domain.endpoints import has_control_character
from app.domain.errors import InvalidFieldError
from app.domain.locations import StoreScheme

if TYPE_CHECKING:
    # The library declares its types for checkers alone.
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PATIENCE_S = 10
# What our own proxy answers to who wants to go elsewhere than to the endpoint. No store gives this status.
MISDIRECTED = 421


@dataclass(frozen=True)
class Dialect:
    """How one kind of store names things, and what it says of them; codes are those of its error answers."""

    scheme: StoreScheme
    service: str
    bucket: str
    endpoint_remedy: str
    key_remedy: str
    missing_bucket: frozenset[str]
    denied: frozenset[str]
    another_region: frozenset[str] = frozenset()


class Proxy(Protocol):
    """The one way by which a store is reached."""

    @property
    def proxy_url(self) -> str:
        """Its address."""


class StoreAccess(Protocol):
    """The keys and settings of one store. Picklable, and its text form shows no secret."""

    @property
    def dialect(self) -> Dialect:
        """The words of this kind of store."""

    def open(self, bucket: str) -> ObjectStore:
        """A store on `bucket` that gives up on a dead endpoint when the settings' patience is at its end.

        Nothing is asked yet. The library also reads the environment; whatever it could find there that matters is
        said explicitly.
        """


def client_options(patience_s: int, *, allow_http: bool, gate: Proxy | None = None) -> ClientConfig:
    """How long one request may take, and by which way it goes."""
    # Named, so that whatever the environment says of proxies counts for nothing.
    by_gate: ClientConfig = {} if gate is None else {"proxy_url": gate.proxy_url}
    return {
        **by_gate,
        # A request is one page or one range, so it has an end in sight; a stalled one is cut off and tried again.
        "connect_timeout": timedelta(seconds=3),
        "read_timeout": timedelta(seconds=patience_s),
        "timeout": timedelta(seconds=120),
        "allow_http": allow_http,
    }


def retry_config(patience_s: int) -> RetryConfig:
    """How often and how long a request that fails is tried again."""
    return {
        "max_retries": 4,
        # A try that begins within it may still take a whole wait for an answer.
        "retry_timeout": timedelta(seconds=patience_s * 0.8),
        "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
    }


def refuse_control_characters(values: Mapping[str, str | None], where: str) -> None:
    """Refuse what no request can carry, such as the line end that came with a key out of a file.

    Raises:
        InvalidFieldError: One of the values holds a control character; the message does not repeat it.
    """
    bad = next((name for name, value in values.items() if value and has_control_character(value)), None)
    if bad is not None:
        raise InvalidFieldError(
            f"{where} has a line end or another control character in {bad}.", remedy="Give the value without it."
        )


def refuse_unknown(given: Iterable[str], known: tuple[str, ...], service: str) -> None:
    """Refuse a field of `source.credentials` that has no use for this service.

    Args:
        given: The names of the fields.
        known: Those that have a use.
        service: Whose they are.

    Raises:
        InvalidFieldError: One has none.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidFieldError(
            f"source.credentials has the unknown field {unknown[0]!r}.",
            remedy=f"Known for {service} are: {', '.join(known)}.",
        )
