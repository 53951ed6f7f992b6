"""The route class of all endpoints: roles are held, what nobody would read is refused, and POSTs can be repeated."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Path
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api import bodies
from app.api.problems import Refusal, refused
from app.api.roles import role_of
from app.api.services import services_of, user_of
from app.domain.access import Role
from app.domain.errors import AutoloaderError, NotFoundError
from app.domain.service import KeptAnswer

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
REPLAYED = "Idempotency-Replayed"
_KEPT_HEADERS = ("etag", "location")
_MADE_ID = "made_id"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_JSON_SPACE = b" \t\r\n"
_SEND_NO_BODY = "Send it without one, or with {}; the service's page /docs says what this address takes."

IngestionId = Annotated[str, Path(description="The ingestion.")]
RunId = Annotated[str, Path(description="The run.")]
DeliveryId = Annotated[str, Path(description="The webhook delivery.")]


async def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            max_length=255,
            description="Any text of the client's: for a day, the same key with the same request has the same answer, "
            "and nothing is done twice.",
        ),
    ] = None,
) -> None:
    """Shows the header in OpenAPI; `Route` reads it."""


async def made_id(request: Request) -> str | None:
    """The id that what the request makes has to have, so that a repeat finds it; None where there is no key."""
    found: str | None = request.scope.get(_MADE_ID)
    return found


# What an endpoint makes under it is made once, also where the process died before it answered.
MadeId = Annotated[str | None, Depends(made_id)]


class Route(APIRoute):
    """A route of this service."""

    # Whether a POST may come with an idempotency key.
    is_repeatable = True

    def get_route_handler(self) -> Handler:
        """Wrap the endpoint."""
        inner = super().get_route_handler()
        known = frozenset(_query_names(self.dependant))
        role = role_of(self.name)
        has_body = self.body_field is not None or _reads_body(self.dependant)

        async def handler(request: Request) -> Response:
            _check_method(request)
            # Before anything is looked at: whoever may not ask does not learn what there is.
            _check_role(request, role)
            _check_ids(request)
            _check_query(request, known)
            if not has_body:
                await _check_no_body(request)
            return await (
                _repeatable(request, inner) if request.method == "POST" and self.is_repeatable else inner(request)
            )

        return handler


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _reads_body(dependant: Dependant) -> bool:
    """Whether the endpoint has the body handed in, as everything in `bodies` that FastAPI calls hands it in."""
    is_reader = getattr(dependant.call, "__module__", None) == bodies.__name__
    return is_reader or any(_reads_body(inner) for inner in dependant.dependencies)


def _check_method(request: Request) -> None:
    # `GET /ingestions/test` finds the route of an ingestion whose id is `test`; but the address is another one's.
    if request.method not in request.app.state.methods.of(request.scope["path"]):
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)


def _check_role(request: Request, role: Role | None) -> None:
    if role is None:
        return
    present = user_of(request).role
    if not present.includes(role):
        detail = f"This needs the role {role.value}; the token's is {present.value}."
        remedy = (
            f"Use a token of that role; `autoloader tokens create --role {role.value}` makes one, where the service's "
            "database is."
        )
        raise Refusal(HTTPStatus.FORBIDDEN, "role_too_low", detail, required_role=role.value, remedy=remedy)


def _check_ids(request: Request) -> None:
    # What cannot be an id is nobody's, and no database is asked for it.
    for value in request.path_params.values():
        if not _ID.fullmatch(str(value)):
            raise NotFoundError


def _check_query(request: Request, known: frozenset[str]) -> None:
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise refused(f"query.{name}", "There is no such parameter.")
        if name in seen:
            raise refused(f"query.{name}", "It may be given once.")
        seen.add(name)
        if "\0" in value:
            raise refused(f"query.{name}", "A NUL character cannot be looked for.")


async def _check_no_body(request: Request) -> None:
    # What a body asks for would not be done. An empty object asks for nothing, and some clients always send one.
    if (await request.body()).translate(None, _JSON_SPACE) not in {b"", b"{}"}:
        raise refused("body", "This operation takes no body.", remedy=_SEND_NO_BODY)


async def _repeatable(request: Request, inner: Handler) -> Response:
    """Do what a request asks for once, however often it comes with the same key."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return await inner(request)
    if len(keys) > 1:
        raise refused("header.Idempotency-Key", "It may be given once.")
    key = keys[0]
    if not _KEY.fullmatch(key):
        raise refused("header.Idempotency-Key", "It has to be 1 to 255 visible characters of ASCII.")
    answers, tenant = services_of(request).answers, user_of(request).tenant
    begun = await asyncio.to_thread(answers.begin_answer, tenant, key, await _digest(request))
    if isinstance(begun, KeptAnswer):
        return Response(begun.body, begun.status, {**begun.headers, REPLAYED: "true"}, "application/json")
    request.scope[_MADE_ID] = begun.made_id
    try:
        response = await inner(request)
    except (AutoloaderError, Refusal, RequestValidationError):
        # Nothing was done, so that the same key may be used for a request that is right. After any other error nobody
        # knows; then the key stays at work for a while.
        await asyncio.to_thread(answers.forget_answer, tenant, key)
        raise
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    answer = KeptAnswer(response.status_code, bytes(response.body).decode(), headers)
    await asyncio.to_thread(answers.keep_answer, tenant, key, answer)
    return response


async def _digest(request: Request) -> str:
    parts = (request.method, request.scope["path"], str(request.scope["query_string"]))
    return hashlib.sha256("\n".join(parts).encode() + b"\n" + await request.body()).hexdigest()
