"""The OpenAPI document: what FastAPI finds out, made whole with request schemas, examples and problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from app.api.definition_fields import CHANGE_FIELDS, CREDENTIAL_NAMES, REQUIRED, SHOWN_FIELDS
from app.api.definition_schema import WEBHOOKS_SCHEMA, definition_schema
from app.api.event_stream import MEDIA_TYPE as EVENT_STREAM
from app.api.models import Confirmation, FilesToRetry, MigrationWish, PrefectHint, Problem, WebhookToTest
from app.api.operations import OPERATIONS, Operation
from app.api.problems import MEDIA_TYPE, problem
from app.api.roles import role_of

TITLE = "Autoloader"
DESCRIPTION = (
    "Keeps Apache Iceberg tables equal to the files in object storage, every row exactly once. "
    "Errors are problem documents (RFC 9457) with a stable code. Where tokens were made, every request carries one; "
    "without any, only the machine itself is answered, and it needs none."
)
TAGS = ("ingestions", "runs", "files", "events", "previews", "migrations", "webhooks", "health", "metrics")
# What can happen to every request.
COMMON = (413, 422, 500, 503)
# What can happen to every request but those that are open to everybody.
_AT_THE_DOOR = (401, 403)
SCHEME = "token"
_WITH_BODY = (415,)
_MEANINGS = {
    401: "No token was sent, or one that is not good; without tokens: it is not from this machine to this machine",
    403: "The token's role is too low; without tokens: a page of another site made a browser ask",
    404: "There is nothing of that id",
    409: "It does not go with how things stand now",
    412: "It was changed meanwhile",
    413: "The body is too large",
    415: "The body is no JSON",
    422: "A field or parameter is not allowed",
    500: "Something nobody expected",
    503: "The database or a catalog does not answer",
}
_CODES = {
    401: "token_required",
    403: "role_too_low",
    404: "not_found",
    409: "run_in_progress",
    412: "version_mismatch",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_field",
    500: "internal",
    503: "ledger_unreachable",
}
_HEADERS = {
    "ETag": "The version of the ingestion, for `If-Match`.",
    "Location": "Where it is.",
}


def openapi_document(routes: list[BaseRoute], version: str) -> dict[str, Any]:
    """The document of these routes, OpenAPI 3.1."""
    tags = [{"name": tag} for tag in TAGS]
    document = get_openapi(title=TITLE, version=version, description=DESCRIPTION, routes=routes, tags=tags)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= _schemas()
    document["components"]["securitySchemes"] = {
        SCHEME: {"type": "http", "scheme": "bearer", "description": "A token that `autoloader tokens create` made."}
    }
    for _, operation in operations(document):
        _complete(operation, OPERATIONS[operation["operationId"]])
    return document


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation with its path and method in one text."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _schemas() -> dict[str, Any]:
    bodies: list[type[BaseModel]] = [Confirmation, FilesToRetry, MigrationWish, PrefectHint, WebhookToTest]
    modes = [(model, "validation") for model in bodies] + [(Problem, "serialization")]
    _, found = models_json_schema(modes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return {
        **found["$defs"],
        "Definition": _with_webhooks(definition_schema(SHOWN_FIELDS, CREDENTIAL_NAMES, required=REQUIRED)),
        "Changes": _with_webhooks(definition_schema(CHANGE_FIELDS, CREDENTIAL_NAMES)),
    }


def _with_webhooks(schema: dict[str, Any]) -> dict[str, Any]:
    schema["properties"]["webhooks"] = WEBHOOKS_SCHEMA
    return schema


def _complete(operation: dict[str, Any], what: Operation) -> None:
    operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
    role = role_of(operation["operationId"])
    # The last one: it goes without, where no token was ever made.
    operation["security"] = [] if role is None else [{SCHEME: []}, {}]
    if role is not None:
        operation["description"] += f"\n\nNeeds the role `{role.value}`."
    responses = operation["responses"]
    if what.schema is not None:
        schema = {"$ref": f"#/components/schemas/{what.schema}"}
        content = {"application/json": {"schema": schema, "example": what.body}}
        operation["requestBody"] = {"required": what.body_required, "content": content}
    statuses = {*COMMON, *(() if role is None else _AT_THE_DOOR), *what.problems, *(_WITH_BODY if what.schema else ())}
    # The service's own way of answering a status is not replaced by a problem.
    for status in sorted(statuses - what.answers.keys()):
        responses[str(status)] = _problem(status)
    if _is_repeatable(operation):
        responses["409"] = _problem(409)
    for status, example in what.answers.items():
        response = responses[str(status)]
        response["description"] = HTTPStatus(status).phrase
        if example is not None:
            response["content"][what.media]["example"] = example
        if what.media == EVENT_STREAM:
            # Some take its schema for that of the whole text, some for that of each event.
            response["content"][what.media]["schema"] = {
                "description": "Server-sent events, as the reference has them."
            }
    first = responses[str(next(iter(what.answers)))]
    if what.headers:
        first["headers"] = {n: {"description": _HEADERS[n], "schema": {"type": "string"}} for n in what.headers}
    operation["responses"] = dict(sorted(responses.items()))


def _is_repeatable(operation: Mapping[str, Any]) -> bool:
    return any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", ()))


def _problem(status: int) -> dict[str, Any]:
    example = problem(HTTPStatus(status), _CODES[status], f"{_MEANINGS[status]}.")
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _MEANINGS[status], "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}
