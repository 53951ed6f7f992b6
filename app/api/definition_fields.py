"""How the fields of an ingestion are shown: their table, and a word on what the command line has no option for."""

from __future__ import annotations

from dataclasses import replace

from app.domain.definition import CREDENTIALS, SERVICE_FIELDS, DefinitionField
from app.domain.ingestions import IngestionStatus
from app.services.schedules import FREQUENCIES

REQUIRED = ("name", "source.path", "destination.database", "destination.table")
_HELP = {
    "name": "Unique among the ingestions.",
    "status": "A draft never runs.",
    "cluster_id": "Where its loads run; `local` is this installation.",
    "schedule.frequency": "How often it runs; custom: as cron_expression says.",
    "schedule.time": "When a daily or weekly one runs, as HH:MM of the time zone's clock; 00:00 unless given.",
    "schedule.day_of_week": "Of a weekly one: sunday to saturday, or 0 to 6; Sunday unless given.",
    "schedule.timezone": "Such as Europe/Berlin.",
    "schedule.cron_expression": "Of a custom one: minute, hour, day, month, day of the week.",
}
_MORE = (
    DefinitionField("source.path", str, None, "s3://bucket/…, az://container/…, gs://bucket/…, or an absolute path."),
    DefinitionField("destination.catalog", str, None, "The catalog of the table; AUTOLOADER_DEFAULT_CATALOG if none."),
    DefinitionField("destination.database", str, None, "The database of the table."),
    DefinitionField("destination.table", str, None, "The table; it is made when it is missing."),
)
_STORES = {"s3": "S3", "azure_blob": "Azure", "gcs": "Google"}


def _shown(field: DefinitionField) -> DefinitionField:
    built = (None, *FREQUENCIES) if field.path == "schedule.frequency" else field.built
    return replace(field, help=_HELP.get(field.path, field.help), built=built)


SHOWN_FIELDS: tuple[DefinitionField, ...] = (*map(_shown, SERVICE_FIELDS), *_MORE)
CHANGE_FIELDS: tuple[DefinitionField, ...] = tuple(
    replace(f, built=tuple(s.value for s in IngestionStatus)) if f.path == "status" else f for f in SHOWN_FIELDS
)
# Name of a credential → whose it is.
CREDENTIAL_NAMES: dict[str, str] = {
    name: ", ".join(_STORES[kind] for kind, names in CREDENTIALS.items() if name in names)
    for name in dict.fromkeys(name for names in CREDENTIALS.values() for name in names)
}
