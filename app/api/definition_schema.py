"""The JSON Schema of an ingestion's definition, made from the table of its fields: what is not built is not in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.definition import DefinitionField
from app.domain.webhooks import WebhookEvent
from app.services.webhook_documents import LONGEST_NAME, LONGEST_SECRET, LONGEST_URL, MOST

_TYPES = {str: "string", bool: "boolean", int: "integer", list: "array"}

# The one field that is a list of objects, which the table of fields does not know.
WEBHOOKS_SCHEMA: Mapping[str, Any] = {
    "type": ["array", "null"],
    "maxItems": MOST,
    "description": "Who is told how runs end. A list replaces the one before; secrets that are not sent stay.",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["url"],
        "properties": {
            "url": {
                "type": "string",
                "pattern": "^https?://",
                "maxLength": LONGEST_URL,
                "description": "Where messages are sent: https://host/path.",
            },
            "name": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": LONGEST_NAME,
                "description": "Unique in the ingestion; the url unless given.",
            },
            "events": {
                "type": ["array", "null"],
                "minItems": 1,
                "items": {"enum": [event.value for event in WebhookEvent]},
                "description": "Of what it is told; of everything unless given.",
            },
            "secret": {
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": LONGEST_SECRET,
                "description": "Messages are signed with it. Never shown; `whsec_…` is base64 of the key.",
            },
        },
    },
}


def definition_schema(
    fields: Iterable[DefinitionField], credentials: Mapping[str, str], *, required: Iterable[str] = ()
) -> dict[str, Any]:
    """A closed object with every field that can be sent.

    Args:
        fields: The table.
        credentials: Names of what `source.credentials` may hold, and what it is for.
        required: Paths that have to be there; so do the objects that they are in.
    """
    schema: dict[str, Any] = _closed()
    for field in fields:
        # Of a field that is to come, only a default that says something can be sent.
        if field.built is None or any(value is not None for value in field.built):
            *folders, name = field.path.split(".")
            _folder(schema, folders)["properties"][name] = _leaf(field)
    keys = {name: {"type": ["string", "null"], "description": f"For {use}."} for name, use in credentials.items()}
    _folder(schema, ["source", "credentials"])["properties"] = keys
    for path in required:
        place = schema
        for name in path.split("."):
            place.setdefault("required", [])
            if name not in place["required"]:
                place["required"].append(name)
            place = place["properties"][name]
            # What has to be there cannot be null.
            if isinstance(place.get("type"), list):
                place["type"] = place["type"][0]
    return schema


def _closed() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _folder(schema: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    place = schema
    for name in names:
        place = place["properties"].setdefault(name, _closed() | {"type": ["object", "null"]})
    return place


def _leaf(field: DefinitionField) -> dict[str, Any]:
    leaf: dict[str, Any] = {"type": [_TYPES[field.kind], "null"]}
    if field.kind is list:
        leaf["items"] = {"type": "string"}
    if field.built is not None:
        leaf["enum"] = [*dict.fromkeys(v for v in field.built if v is not None), None]
    if field.default is not None:
        leaf["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    if field.help:
        leaf["description"] = field.help
    return leaf
