"""The JSON document of an ingestion: whether every field of it is one, and what it says. Pure.

The table of fields is the command line's too, so a value that is not built is refused everywhere with the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from app.domain.definition import CREDENTIALS, SERVICE_FIELDS, DefinitionField, check_value, format_options
from app.domain.endpoints import checked_endpoint, has_control_character
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.domain.formats import FileFormat
from app.domain.ingestions import IngestionStatus, Schedule
from app.domain.locations import parse_location, source_type
from app.domain.patterns import file_pattern
from app.domain.table import TableName, parse_table_name
from app.services.schedules import check_schedule
from app.services.webhook_documents import FIELD as _WEBHOOKS
from app.services.webhook_documents import CheckedWebhooks, check_webhooks

Document = dict[str, Any]

LONGEST_NAME = 200
LONGEST_TEXT = 10_000
LONGEST_LIST = 1_000
# A service account's key is some 2,400 characters.
LONGEST_CREDENTIAL = 20_000
# The table of fields has three levels, a service account's key is one more.
DEEPEST = 6

_NAMES = ("source.path", "destination.catalog", "destination.database", "destination.table")
# Beside those of the table of fields, which the command line spells as arguments.
_OWN = tuple(DefinitionField(path, str, None, "") for path in _NAMES)
_FIELDS = {f.path: f for f in (*SERVICE_FIELDS, *_OWN)}
_GROUPS = {path.rsplit(".", at)[0] for path in _FIELDS for at in range(1, path.count(".") + 1)}
_CREDENTIALS = "source.credentials"
_REQUIRED = ("name", "source.path", "destination.database", "destination.table")
# What `null` and these mean alike: nothing.
_NOTHING: dict[str, Any] = {"webhooks": []}
# Fields of which another type than that of the table is right too.
_ALSO: dict[str, tuple[type, ...]] = {"schedule.day_of_week": (int,)}
_TYPE_NAMES = {str: "a text", bool: "true or false", int: "a whole number", list: "a list of texts"}


@dataclass(frozen=True)
class Checked:
    """A document that was understood.

    Args:
        document: What was given and is not null, without `name`, `status`, credentials and secrets of webhooks;
            `source.type` is in it.
        credentials: Names to values.
        webhooks: Those of the document, and their secrets.
    """

    name: str
    status: IngestionStatus
    table: TableName
    document: Mapping[str, Any]
    schedule: Schedule | None
    credentials: Mapping[str, str] = field(default_factory=dict)
    webhooks: CheckedWebhooks = field(default_factory=CheckedWebhooks)


def check_document(given: Mapping[str, Any], *, default_catalog: str, home: str) -> Checked:
    """Understand a whole document.

    Args:
        given: The JSON object, its numbers, texts and lists as Python has them.
        default_catalog: The catalog of a destination that names none.
        home: The folder that a relative local path starts from.

    Raises:
        InvalidFieldError: A field is unknown, missing or has no meaning; `field` is its path.
        NotSupportedError: It has a meaning that is not built.
    """
    values = dict(_leaves(given, ""))
    credentials = values.pop(_CREDENTIALS, {})
    webhooks = values.pop(_WEBHOOKS, CheckedWebhooks())
    for path in _REQUIRED:
        if path not in values:
            raise InvalidFieldError(f"{path} is missing.", field=path)
    name = _checked_name(values.pop("name"))
    status = IngestionStatus(values.pop("status", IngestionStatus.ACTIVE.value))
    if values.get("cluster_id") == "":
        raise InvalidFieldError("cluster_id is empty.", remedy="Leave it out, or use local.", field="cluster_id")
    values["source.type"] = _checked_source(values, credentials, home)
    _check_format(values)
    schedule = _schedule(values, is_given=given.get("schedule") is not None)
    table = _table(values, default_catalog)
    document = _nested(values)
    if webhooks.webhooks:
        document[_WEBHOOKS] = webhooks.document
    return Checked(name, status, table, document, schedule, credentials, webhooks)


def changed_document(present: Mapping[str, Any], changes: Mapping[str, Any]) -> Document:
    """The document with the changes made: an object changes what it names, null removes, everything else replaces.

    Another frequency begins the schedule anew, but for its time zone; another path tells the source's type anew.
    """
    present = dict(present)
    source, moved = present.get("source"), changes.get("source")
    if isinstance(source, Mapping) and isinstance(moved, Mapping) and "path" in moved:
        present["source"] = {name: v for name, v in source.items() if name != "type"}
    schedule, changed = present.get("schedule"), changes.get("schedule")
    if isinstance(schedule, Mapping) and isinstance(changed, Mapping):
        frequency = changed.get("frequency", schedule.get("frequency"))
        if frequency != schedule.get("frequency"):
            present["schedule"] = {name: v for name, v in schedule.items() if name == "timezone"}
    return _merged(present, changes)


def changed_credentials(present: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, str] | None:
    """All credentials with the changes made; None where nothing of them changes.

    Raises:
        InvalidFieldError: Keys that are kept would be sent to another place than they were given for.
    """
    source = changes.get("source", {})
    if source is None or (isinstance(source, Mapping) and "credentials" in source and source["credentials"] is None):
        return {}
    if not isinstance(source, Mapping) or "credentials" not in source:
        return None
    given = source["credentials"]
    if not isinstance(given, Mapping):
        raise InvalidFieldError(f"{_CREDENTIALS} must be an object.", field=_CREDENTIALS)
    result = _merged(present, given)
    kept = [name for name in present if name in result and name not in given and name not in _PLACES]
    if kept and any(result.get(name) != present.get(name) for name in _PLACES):
        path = f"{_CREDENTIALS}.{kept[0]}"
        raise InvalidFieldError(f"{path} is missing: a new address needs its keys to be sent again.", field=path)
    return result


# Whose endpoint it is.
_SERVICES = {"s3": "an S3 service", "azure_blob": "a Blob service", "gcs": "a Google Cloud Storage service"}
# Where keys are sent.
_PLACES = ("endpoint_url", "account_name")


def whole_document(name: str, status: IngestionStatus, document: Mapping[str, Any]) -> Document:
    """A document as it was sent, of its parts; credentials left out."""
    return {"name": name, "status": status.value, **document}


def values_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a definition by name, as a load takes them."""
    found: dict[str, Any] = {}
    for one in SERVICE_FIELDS:
        if one.path.startswith(("source.", "format.", "destination.")):
            value = _get(document, one.path)
            if value is not None:
                found[one.name] = tuple(value) if isinstance(value, list) else value
    return found


def _merged(present: Mapping[str, Any], changes: Mapping[str, Any], depth: int = 0) -> Document:
    if depth > DEEPEST:
        raise InvalidFieldError("The document is nested more deeply than any ingestion's.")
    result = dict(present)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            inner = result.get(name)
            result[name] = _merged(inner if isinstance(inner, Mapping) else {}, value, depth + 1)
        else:
            result[name] = value
    return result


def _get(document: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - a value of any field
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _nested(values: Mapping[str, Any]) -> Document:
    document: Document = {}
    for path, value in values.items():
        *groups, name = path.split(".")
        inner = document
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return document


# --- one field after the other -------------------------------------------------------------------------------------


def _leaves(given: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - whatever JSON holds
    """The fields that are given and not null, each checked by itself."""
    if not isinstance(given, Mapping):
        raise InvalidFieldError(f"{path or 'The body'} must be an object.", field=path)
    for name, value in given.items():
        inner = f"{path}.{name}" if path else str(name)
        if value is None or (inner in _NOTHING and value == _NOTHING[inner]):
            _known(inner)
        elif inner == _CREDENTIALS:
            yield inner, _checked_credentials(value)
        elif inner == _WEBHOOKS:
            yield inner, check_webhooks(value)
        elif inner in _GROUPS:
            # No deeper than the table of fields is, whatever was sent.
            yield from _leaves(value, inner)
        else:
            yield inner, _checked(_known(inner), value)


def _known(path: str) -> DefinitionField | None:
    if path in _FIELDS:
        return _FIELDS[path]
    if path in _GROUPS or path == _CREDENTIALS:
        return None
    shown = path if len(path) <= LONGEST_NAME else f"{path[:LONGEST_NAME]}…"
    raise InvalidFieldError(f"{shown} is no field of an ingestion.", field=shown)


def _checked(one: DefinitionField | None, value: Any) -> Any:  # noqa: ANN401 - a value of any field
    assert one is not None  # noqa: S101 - groups are taken before
    if one.built == (None,) and not isinstance(value, one.kind):
        # What is not built at all has other types in its time.
        raise NotSupportedError(f"{one.path} is not supported.", remedy="Leave it out.", field=one.path)
    if not _fits(value, (one.kind, *_ALSO.get(one.path, ()))):
        raise InvalidFieldError(f"{one.path} must be {_TYPE_NAMES[one.kind]}.", field=one.path)
    _check_length(one.path, value, LONGEST_TEXT)
    with _named(one.path):
        check_value(one, value)
    return value


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:  # noqa: ANN401 - a value of any field
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, list):
        return list in kinds and all(isinstance(one, str) for one in value)
    return isinstance(value, kinds)


def _check_length(path: str, value: Any, longest: int) -> None:  # noqa: ANN401 - a value of any field
    texts = value if isinstance(value, list) else [value]
    if len(texts) > LONGEST_LIST or any(isinstance(one, str) and len(one) > longest for one in texts):
        raise InvalidFieldError(f"{path} is too long.", field=path)
    for one in texts:
        if isinstance(one, str) and ("\0" in one or not _is_unicode(one)):
            raise InvalidFieldError(f"{path} holds a character that no text may have.", field=path)
        if isinstance(one, int) and abs(one) >= 1 << 63:
            raise InvalidFieldError(f"{path} is too large a number.", field=path)


def _is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which JSON can spell and no database keeps."""
    return all(not "\ud800" <= c <= "\udfff" for c in text)


def _checked_credentials(given: Any) -> dict[str, str]:  # noqa: ANN401 - whatever JSON holds
    """Names to texts. Values are never repeated, whatever is wrong with them."""
    if not isinstance(given, Mapping):
        raise InvalidFieldError(f"{_CREDENTIALS} must be an object.", field=_CREDENTIALS)
    known = {name for names in CREDENTIALS.values() for name in names}
    found = {}
    for name, value in given.items():
        path = f"{_CREDENTIALS}.{name}"
        if name not in known:
            raise InvalidFieldError(f"{path[:LONGEST_NAME]} is no credential.", field=path[:LONGEST_NAME])
        if value is None:
            continue
        # A service account's key is a document of its own, which may stand there as it is or as text.
        text = json.dumps(value) if name == "service_account_key" and _is_flat(value) else value
        if not isinstance(text, str):
            raise InvalidFieldError(f"{path} must be a text.", field=path)
        _check_length(path, text, LONGEST_CREDENTIAL)
        # A service account's key is a document, and may have lines.
        if name != "service_account_key" and has_control_character(text):
            raise InvalidFieldError(f"{path} holds a line end or another control character.", field=path)
        found[name] = text
    return found


def _is_flat(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    return isinstance(value, Mapping) and not any(isinstance(one, Mapping | list) for one in value.values())


# --- fields that go together ---------------------------------------------------------------------------------------


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Have the errors of checks that do not know the document's form name the field."""
    try:
        yield
    except (InvalidFieldError, NotSupportedError) as error:
        first = error.message.split(" ", 1)[0]
        error.field = error.field or (first if first in _FIELDS else path)
        raise


def _checked_name(name: str) -> str:
    if not name.strip() or len(name) > LONGEST_NAME or any(ord(c) < 32 for c in name):  # noqa: PLR2004 - controls
        raise InvalidFieldError(
            f"name must have 1 to {LONGEST_NAME} characters, and no control character.", field="name"
        )
    return name


def _checked_source(values: Mapping[str, Any], credentials: Mapping[str, str], home: str) -> str:
    """The type of the source."""
    path = values["source.path"]
    with _named("source.path"):
        parse_location(path, cwd=home)
    found = source_type(path)
    given = values.get("source.type")
    if given not in (None, found):
        raise InvalidFieldError(
            f"source.type is {given}, and source.path names a source of type {found}.", field="source.type"
        )
    if values.get("source.file_pattern") is not None:
        with _named("source.file_pattern"):
            file_pattern(values["source.file_pattern"])
    unknown = sorted(set(credentials) - set(CREDENTIALS[found]))
    if unknown:
        path = f"{_CREDENTIALS}.{unknown[0]}"
        raise InvalidFieldError(f"{path} has no use for a source of type {found}.", field=path)
    endpoint = credentials.get("endpoint_url")
    if endpoint:
        with _named(f"{_CREDENTIALS}.endpoint_url"):
            checked_endpoint(endpoint, _SERVICES[found])
    return found


def _check_format(values: Mapping[str, Any]) -> None:
    by_name = {_FIELDS[path].name: value for path, value in values.items()}
    with _named("format.options"):
        format_options(by_name, FileFormat(values.get("format.type", FileFormat.JSON.value)))


def _schedule(values: Mapping[str, Any], *, is_given: bool) -> Schedule | None:
    prefix = "schedule."
    given = {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}
    if not is_given:
        return None
    if "frequency" not in given:
        raise InvalidFieldError(
            "schedule.frequency is missing.",
            remedy="Give it, or null in the place of the schedule for none.",
            field="schedule.frequency",
        )
    schedule = Schedule(**given)
    with _named("schedule"):
        check_schedule(schedule)
    return schedule


def _table(values: Mapping[str, Any], default_catalog: str) -> TableName:
    catalog = values.get("destination.catalog", default_catalog)
    for path, value in (("destination.catalog", catalog), ("destination.table", values["destination.table"])):
        if "." in value:
            raise InvalidFieldError(f"{path} = {value!r} is no name: it has a dot.", field=path)
    with _named("destination"):
        return parse_table_name(
            f"{catalog}.{values['destination.database']}.{values['destination.table']}", default_catalog=catalog
        )
