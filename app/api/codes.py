"""Every code that a problem document may have, with what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.api.problems import CODES_OF_HTTP
from app.domain import errors
from app.domain.errors import AutoloaderError, FatalError, RetriableError

NOT_READY = "not_ready"
SCHEDULING_OFF = "scheduling_off"
WRONG_TOKEN = "webhook_token_invalid"  # noqa: S105 - it is a code


def _families(kind: type[AutoloaderError]) -> Iterator[type[AutoloaderError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _families(inner)


def _meaning(kind: type[AutoloaderError]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


def _is_shown(kind: type[AutoloaderError]) -> bool:
    """Whether an answer can have its code: roots of the tree are never raised, and others keep their code inside."""
    return issubclass(kind, RetriableError | FatalError) and kind.__module__ == errors.__name__


MEANINGS: Mapping[str, str] = {
    **{kind.code: _meaning(kind) for kind in _families(AutoloaderError) if _is_shown(kind)},
    **CODES_OF_HTTP,
    SCHEDULING_OFF: "There is no Prefect server for this service: PREFECT_API_URL is not set.",
    WRONG_TOKEN: "It is not the token that Prefect was given for its calls to this service.",
    NOT_READY: "The database does not answer.",
}
