"""Every error as a problem document (RFC 9457), and the one table from our errors to statuses of HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.domain import errors

MEDIA_TYPE = "application/problem+json"
# Where the documentation page of the service itself explains a code.
TYPE_PREFIX = "/docs#code-"

# The first class of an error's ancestry that is named here decides.
STATUSES: Mapping[type[errors.AutoloaderError], HTTPStatus] = {
    errors.NotFoundError: HTTPStatus.NOT_FOUND,
    errors.TableNotFoundError: HTTPStatus.NOT_FOUND,
    errors.VersionMismatchError: HTTPStatus.PRECONDITION_FAILED,
    errors.ConflictError: HTTPStatus.CONFLICT,
    errors.RunInProgressError: HTTPStatus.CONFLICT,
    errors.TableReplacedError: HTTPStatus.CONFLICT,
    errors.TableRolledBackError: HTTPStatus.CONFLICT,
    errors.TableUnsuitableError: HTTPStatus.CONFLICT,
    errors.TableUnreadableError: HTTPStatus.CONFLICT,
    errors.LedgerBehindTableError: HTTPStatus.CONFLICT,
    errors.UsageError: HTTPStatus.UNPROCESSABLE_ENTITY,
    # What the body names is not there, or not as the body says; also where that may change by itself.
    errors.SourceNotFoundError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoMatchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BucketNotFoundError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SourceAuthError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SourceUnreachableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SourceContainsWarehouseError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SourceNotAllowedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.SchemaInferenceError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CatalogNotConfiguredError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FileError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
    # A database, catalog or disk of ours that a person has to see to, or that comes back by itself.
    errors.AutoloaderError: HTTPStatus.SERVICE_UNAVAILABLE,
}

# Codes of what HTTP itself refuses.
_HTTP_CODES = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
}
CODES_OF_HTTP = {
    "not_found": "There is nothing under this address.",
    "method_not_allowed": "The address exists, the method does not; `Allow` names those that do.",
    "bad_request": "The request cannot be understood.",
    "body_too_large": "The body is larger than a request of this service ever is.",
    "unsupported_media_type": "The body has to be JSON: `Content-Type: application/json`.",
    "invalid_json": "The body is no JSON document, or is nested too deeply.",
    "tokens_required": "Without tokens only this machine itself may ask.",
    "token_required": "No token was sent, and the service answers nobody without one.",
    "token_invalid": "The token is not known, or not good any more.",
    "role_too_low": "The token's role is not enough for this; `required_role` is.",
    "foreign_origin": "A page of another site made a browser ask.",
    "internal": "Something nobody expected.",
}

# What to do about what the edge itself refuses, where whoever refuses it has nothing better to say.
REMEDIES: Mapping[str, str] = {
    "not_found": "Check the address and the id in it: the service's page /docs has all addresses. What a command is "
    "told by --server is the service's own, such as http://localhost:8000.",
    "method_not_allowed": "Use one of the methods that `Allow` names.",
    "bad_request": "Send what the service's page /docs says of this address.",
    "body_too_large": "Send less at once.",
    "unsupported_media_type": "Send the body in JSON, as it is, with `Content-Type: application/json`.",
    "invalid_json": "Send one JSON document in UTF-8. A file is sent as it is by `curl --data-binary @FILE`.",
    errors.InvalidFieldError.code: "Correct what `errors` names; the service's page /docs says what each may be.",
    errors.ConfirmationNeededError.code: 'Send {"confirm": true}.',
    errors.ConflictError.code: "Look at its state (GET), then decide whether to ask again.",
    errors.InternalError.code: "Tell whoever runs the service; its log has this answer's X-Request-Id.",
    "foreign_origin": "Ask from a program, or from a page that this service itself has sent.",
    "webhook_token_invalid": "Nothing has to be done: within a minute the service tells Prefect the right one.",
    "not_ready": "Ask again in a moment; GET /health tells what is missing.",
    "scheduling_off": "Have PREFECT_API_URL set where the service is started.",
}
_LATER = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
# Conflicts that pass by themselves. They are no `RetriableError`: whoever asks decides whether to wait, no run does.
_PASSING = frozenset({errors.RunAtWorkError.code, errors.KeyAtWorkError.code})


class Refusal(Exception):  # noqa: N818 - it is an answer as much as an error
    """The edge itself refuses a request, before a service sees it."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        required_role: str | None = None,
        remedy: str | None = None,
    ) -> None:
        """Keep what the problem document says.

        Args:
            status: Of the answer.
            code: That never changes.
            detail: A sentence or two.
            fields: Path and message of each thing that is wrong in the request.
            required_role: The role that would be enough.
            remedy: What to do about it.
        """
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = tuple(fields)
        self.required_role = required_role
        self.remedy = remedy


def refused(field: str, message: str, *, remedy: str | None = None) -> Refusal:
    """The refusal of one value of a request; `field` says where it was, such as `query.limit`."""
    detail, fields = f"{field}: {message}", [(field, message)]
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, errors.InvalidFieldError.code, detail, fields=fields, remedy=remedy)


def problem(status: HTTPStatus, code: str, detail: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """A problem document; members that are None are left out. What to do is in each, and whether to try again."""
    document = {"type": f"{TYPE_PREFIX}{code}", "title": status.phrase, "status": int(status), "detail": detail}
    remedy = {"remedy": REMEDIES[code]} if code in REMEDIES else {}
    given = {name: value for name, value in more.items() if value is not None}
    retryable = status in _LATER or code in _PASSING
    return document | {"code": code, "retryable": retryable} | remedy | given


def problem_of(error: errors.AutoloaderError) -> dict[str, Any]:
    """The problem document of one of our errors."""
    status = status_of(error)
    field = getattr(error, "field", None)
    return problem(
        status,
        error.code,
        error.message,
        remedy=error.advice or None,
        retryable=isinstance(error, errors.RetriableError) or error.code in _PASSING,
        errors=[{"field": field, "message": error.message}] if field else None,
        run_id=getattr(error, "run_id", None) or None,
    )


def status_of(error: errors.AutoloaderError) -> HTTPStatus:
    """The status that tells a client what to do about an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def answer(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A problem document as it goes out."""
    return JSONResponse(document, document["status"], headers, MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem document."""
    app.add_exception_handler(errors.AutoloaderError, _ours)
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def of_exception(error: Exception) -> Response | None:
    """The answer to an error that is an answer to the client; None for one that nobody expected."""
    if isinstance(error, errors.AutoloaderError):
        return answer(problem_of(error))
    if isinstance(error, Refusal):
        fields = [{"field": path, "message": message} for path, message in error.fields] or None
        more = {"remedy": error.remedy, "errors": fields, "required_role": error.required_role}
        return answer(problem(error.status, error.code, error.detail, **more))
    return None


async def _ours(_request: Request, error: Exception) -> Response:
    return of_exception(error) or internal()


_refusal = _ours


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class
    fields = [(_path(e["loc"]), str(e["msg"])) for e in error.errors()]
    return answer(invalid(fields))


def invalid(fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The problem document of values that are not allowed: (path, message) of each."""
    path, message = fields[0]
    return problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        errors.InvalidFieldError.code,
        f"{path}: {message}",
        errors=[{"field": path, "message": message} for path, message in fields],
    )


def _path(location: Sequence[str | int]) -> str:
    # The first part says where it was: query, path, header; a body's fields go by their own names.
    parts = [str(part) for part in location]
    return ".".join(parts[1:] if parts[0] == "body" and len(parts) > 1 else parts)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class
    status = HTTPStatus(error.status_code)
    code = _HTTP_CODES.get(status, status.name.lower())
    detail = CODES_OF_HTTP.get(code, str(error.detail))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names those of one route; an address may have several.
        allowed = request.app.state.methods.of(request.scope["path"])
        headers |= {"Allow": ", ".join(sorted(allowed))} if allowed else {}
    return answer(problem(status, code, detail), headers)


def internal() -> Response:
    """The answer to an error that nobody expected; its message stays here, for it may quote anything."""
    return answer(
        problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            errors.InternalError.code,
            "The service met something that it did not expect; its log says more.",
        )
    )
