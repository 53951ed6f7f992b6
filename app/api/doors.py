"""The door of the service: who may come in is decided here, before a body is read.

With tokens, nobody without a good one, from wherever he comes. Without tokens, nobody but this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.local_only import FOREIGN, TOKENS_REQUIRED, is_local, is_own_origin
from app.api.problems import answer, problem, problem_of
from app.api.services import Services
from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.domain.ingestions import User
from app.services.access import Denial, Identity

log = EventLog(__name__)

OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/api/v1/health/live", "/api/v1/health/ready"})
# It asks for a token of its own, which is no user's.
_PREFECTS = "/api/v1/webhooks/prefect"
# How the service is can be told without a database; all else cannot be done without.
_HEALTH = frozenset({"/health", "/api/v1/health"})
_BEARER = re.compile(r"bearer +([^\s,]+)", re.IGNORECASE)
_CHALLENGES = {
    "token_required": 'Bearer realm="autoloader"',
    "token_invalid": 'Bearer realm="autoloader", error="invalid_token"',
}
_DETAILS = {
    Denial.MISSING: "This service answers nobody without a token.",
    Denial.UNKNOWN: "The token that was sent is none of this service's.",
    Denial.EXPIRED: "The token's time is over.",
    Denial.REVOKED: "The token was revoked.",
}
_REMEDY = "Send `Authorization: Bearer …`; `autoloader tokens create` makes a token, where the service's database is."


class Doors:
    """Lets requests in with `scope["user"]` set, and answers the others; `OPEN_PATHS` are for everybody."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it without reading its body."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        services: Services = scope["app"].state.services
        try:
            identity = await services.access.identify(_token(headers))
        except AutoloaderError as error:
            if scope["path"] not in _HEALTH or services.access.was_server_mode:
                await answer(problem_of(error))(scope, receive, send)
                return
            identity = Identity(is_server_mode=False)
        if identity.is_server_mode and scope["path"] == _PREFECTS:
            await self._app(scope, receive, send)
            return
        found = _by_token(scope, identity) if identity.is_server_mode else _by_place(scope, headers)
        if isinstance(found, User):
            scope["user"] = found
            scope["still_may"] = lambda: _still_may(services, _token(headers), found)
            await self._app(scope, receive, send)
        else:
            challenge = {"WWW-Authenticate": _challenge(found)} if found["status"] == HTTPStatus.UNAUTHORIZED else None
            await answer(found, challenge)(scope, receive, send)


def _token(headers: Headers) -> str | None:
    """What was sent as a token; None where nothing was."""
    sent = headers.getlist("authorization")
    if not sent:
        return None
    found = _BEARER.fullmatch(sent[0].strip())
    # What is no single token is none that is known.
    return found[1] if found and len(sent) == 1 else ""


def _by_token(scope: Scope, identity: Identity) -> User | dict[str, Any]:
    """Who it is; else the problem document."""
    if identity.user is not None:
        return identity.user
    denial = identity.denial or Denial.UNKNOWN
    # Who looks whether the service is there, every other second, tries to be let in nowhere.
    if denial is not Denial.MISSING or scope["path"] not in _HEALTH:
        _note_failure(scope, identity, denial)
    code = "token_required" if denial is Denial.MISSING else "token_invalid"
    return problem(HTTPStatus.UNAUTHORIZED, code, _DETAILS[denial], remedy=_REMEDY, retryable=False)


def _note_failure(scope: Scope, identity: Identity, denial: Denial) -> None:
    client = scope.get("client")
    log.warning(
        "authentication_failed",
        reason=denial.value,
        access_id=identity.token_id,
        peer=client[0] if client else None,
        method=scope["method"],
        path=scope["path"],
    )


async def _still_may(services: Services, token: str | None, user: User) -> bool:
    """Whether whoever was let in would be let in now; a database that does not say changes nothing."""
    try:
        identity = await services.access.identify(token)
    except AutoloaderError:
        return True
    return not identity.is_server_mode or identity.user == user


def _by_place(scope: Scope, headers: Headers) -> User | dict[str, Any]:
    client = scope.get("client")
    if not is_local(client[0] if client else None, headers):
        return TOKENS_REQUIRED
    return User() if is_own_origin(headers) else FOREIGN


def _challenge(document: Mapping[str, Any]) -> str:
    return _CHALLENGES.get(document["code"], "Bearer")
