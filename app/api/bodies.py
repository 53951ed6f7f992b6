"""JSON bodies: read strictly, held against a model, so that what a service is given is what the client meant."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from app.api.problems import CODES_OF_HTTP, Refusal
from app.domain.errors import InvalidFieldError

MAX_DEPTH = 32
_MOST_DIGITS = 1_000
_JSON = re.compile(r"\s*application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
# Outside of strings, brackets tell the depth; strings are passed over whole.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)


class Strict(BaseModel):
    """A body of few fields; others are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


Model = TypeVar("Model", bound=Strict)


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request, which has to be a JSON object.

    Raises:
        Refusal: It is none: compressed, no JSON, nested deeper than `MAX_DEPTH`, a name twice in one object, a number
            that JSON does not have, or text that no database can keep.
    """
    body = await request.body()
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"identity", ""}:
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body has to be sent as it is, without Content-Encoding.",
        )
    if not _JSON.fullmatch(request.headers.get("content-type", "")):
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", CODES_OF_HTTP["unsupported_media_type"]
        )
    if depth_of(body) > MAX_DEPTH:
        raise _invalid_json(f"The body is nested deeper than {MAX_DEPTH} levels.")
    try:
        # By hand: left to itself the parser would take UTF-16 too, whose brackets were not counted.
        document = json.loads(
            body.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_int=_whole_number
        )
    except UnicodeDecodeError as error:
        raise _invalid_json(f"The body is not UTF-8, at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        raise _invalid_json(f"The body is no JSON: {error.msg}, line {error.lineno} column {error.colno}.") from None
    except ValueError as error:
        raise _invalid_json(f"The body cannot be taken: {error}") from None
    if not isinstance(document, dict):
        raise _invalid_json("The body has to be a JSON object.")
    bad = next(_unkeepable(document, ()), None)
    if bad is not None:
        raise _field(bad, "The text holds a NUL character or half a surrogate pair, which cannot be kept.")
    return document


def parsed(model: type[Model], *, optional: bool = False) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that gives the body as `model`.

    Args:
        model: What the body has to be.
        optional: No body at all is an empty object.
    """

    async def body(request: Request) -> Model:
        document = {} if optional and not await request.body() else await json_object(request)
        try:
            return model.model_validate(document)
        except ValidationError as error:
            fields = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
            path, message = fields[0]
            raise Refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY, InvalidFieldError.code, f"{path}: {message}", fields=fields
            ) from None

    return body


def depth_of(body: bytes) -> int:
    """How deep brackets are nested; it is asked before anything that recurses reads the body."""
    depth = deepest = 0
    for token in _TOKENS.finditer(body):
        mark = token.group()
        if mark in {b"{", b"["}:
            depth += 1
            deepest = max(deepest, depth)
        elif mark in {b"}", b"]"}:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the name {twice[:100]!r} stands twice in one object.")
    return found


def _whole_number(text: str) -> int:
    # Of more digits Python reads none, and no field takes one.
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the number {text[:20]}… has {len(text):,} digits.")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON.")


def _unkeepable(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths of texts that no database keeps."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _unkeepable(name, path)
            yield from _unkeepable(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _unkeepable(inner, (*path, str(number)))


def _field(path: Sequence[str], message: str) -> Refusal:
    name = ".".join(part.encode("utf-8", "replace").decode() for part in path) or "body"
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY, InvalidFieldError.code, f"{name}: {message}", fields=[(name, message)]
    )


def _invalid_json(detail: str) -> Refusal:
    # An error of the parser may quote half a surrogate pair, which has no form in UTF-8.
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_json", detail.encode("utf-8", "replace").decode())
