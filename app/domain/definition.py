"""The definition of an ingestion: every field of it, which values are built, and the frozen form that a batch keeps.

One table of fields serves the command line now and every other edge later, so that a value that is not built yet is
refused everywhere with the same words, and never accepted and ignored.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.domain.errors import InvalidFieldError, NotSupportedError
from app.domain.formats import DEFAULT_MAX_COLUMNS, DEFAULT_SAMPLE_BYTES, FileFormat, FormatOptions


@dataclass(frozen=True)
class DefinitionField:
    """One field: its path in the definition, its default, and what is allowed.

    `built` None means that any value of the type works; otherwise only these do. `known` are values that have a
    meaning but are not built yet.
    """

    path: str
    kind: type
    default: Any
    help: str
    built: tuple[Any, ...] | None = None
    known: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the path, as a keyword."""
        return _KEYWORDS.get(self.path, self.path.rsplit(".", 1)[-1])

    @property
    def usable(self) -> bool:
        """Whether anything but the default can be chosen."""
        return self.built is None or len(self.built) > 1


_KEYWORDS = {"source.type": "source_type", "format.type": "format"}

_UNBUILT: tuple[Any, ...] = (None,)

FIELDS: tuple[DefinitionField, ...] = (
    DefinitionField("name", str, None, "", built=_UNBUILT),
    DefinitionField("status", str, "active", "", built=("active",), known=("draft",)),
    DefinitionField("cluster_id", str, "local", "Where the load runs.", built=("local",)),
    DefinitionField(
        "source.type",
        str,
        None,
        "local, s3, azure_blob or gcs; by default what SOURCE says.",
        built=(None, "local", "s3", "azure_blob", "gcs"),
        known=("sftp",),
    ),
    DefinitionField(
        "source.file_pattern",
        str,
        None,
        "Which files: without '/' a pattern for names at any depth, with '/' for the path below SOURCE.",
    ),
    DefinitionField(
        "source.complete_when",
        str,
        None,
        "Take a folder's files only when a file of this name stands in it, such as _SUCCESS.",
    ),
    DefinitionField(
        "source.on_file_change",
        str,
        "ignore",
        "A new version of a file that was loaded: ignore it, append its rows, or replace the file's rows by them.",
        built=("ignore", "append", "replace"),
    ),
    DefinitionField(
        "format.type",
        str,
        None,
        "json, csv or parquet; by default what the files' names say.",
        built=(None, "json", "csv", "parquet"),
        known=("avro", "orc", "xml", "text", "xlsx"),
    ),
    DefinitionField("format.options.header", bool, True, "CSV: the first line names the columns."),
    DefinitionField(
        "format.options.delimiter", str, None, "CSV: what separates fields (default: a comma; .tsv: a tab)."
    ),
    DefinitionField("format.options.quote", str, '"', "CSV: what encloses fields."),
    DefinitionField("format.options.escape", str, None, "CSV: what takes the meaning from the next character."),
    DefinitionField("format.options.encoding", str, None, "Text encoding (default: UTF-8, or the byte order mark's)."),
    DefinitionField("format.options.null_values", list, ("",), "CSV: unquoted texts that mean NULL."),
    DefinitionField("format.options.skip_rows", int, 0, "CSV: lines to leave out before the header."),
    DefinitionField(
        "format.options.compression",
        str,
        "auto",
        "auto (known by content), none, gzip, zstd or bz2.",
        built=("auto", "none", "gzip", "zstd", "bz2"),
        known=("xz", "snappy", "lz4", "zip"),
    ),
    DefinitionField("format.options.multiline", bool, False, "", built=(False,), known=(True,)),
    DefinitionField("format.options.comment", str, None, "", built=_UNBUILT),
    DefinitionField("format.options.footer_rows", int, 0, "", built=(0,)),
    DefinitionField("format.options.header_rows", int, 1, "", built=(1,)),
    DefinitionField("format.options.date_format", str, None, "", built=_UNBUILT),
    DefinitionField("format.options.timestamp_format", str, None, "", built=_UNBUILT),
    DefinitionField("format.options.decimal_comma", bool, False, "", built=(False,), known=(True,)),
    DefinitionField("format.options.hive_columns", bool, False, "", built=(False,), known=(True,)),
    DefinitionField("format.schema.inference", str, "auto", "", built=("auto",), known=("manual",)),
    DefinitionField("format.schema.evolution_enabled", bool, True, "", built=(True,), known=(False,)),
    DefinitionField(
        "format.schema.on_schema_change",
        str,
        None,
        "What new columns and wider types do to the table.",
        built=(None, "append_new_columns"),
        known=("ignore", "sync_all_columns", "fail", "pause"),
    ),
    DefinitionField("format.schema.schema_json", str, None, "", built=_UNBUILT),
    DefinitionField("format.schema.hints", str, None, "", built=_UNBUILT),
    DefinitionField(
        "format.schema.sample_bytes", int, DEFAULT_SAMPLE_BYTES, "Bytes to look at when types are inferred."
    ),
    DefinitionField("format.schema.infer_timestamps", bool, True, "Take ISO 8601 texts as dates and timestamps."),
    DefinitionField("format.schema.column_names", str, "keep", "", built=("keep",), known=("snake_case",)),
    DefinitionField("format.schema.max_columns", int, DEFAULT_MAX_COLUMNS, "Columns a file may have."),
    # "quarantine" is the contract's default. Until it is built a bad row fails its file, which loses nothing.
    DefinitionField("format.on_bad_row", str, "quarantine", "", built=("quarantine",), known=("fail_file", "drop")),
    DefinitionField("format.max_bad_rows", str, "10%", "", built=("10%",)),
    DefinitionField("format.rescue", bool, True, "", built=(True,), known=(False,)),
    DefinitionField("destination.write_mode", str, "append", "", built=("append",), known=("overwrite", "merge")),
    DefinitionField("destination.merge_keys", str, None, "", built=_UNBUILT),
    DefinitionField(
        "destination.provenance", bool, True, "Add the columns _file_path, _file_modified_at and _batch_id."
    ),
    DefinitionField("destination.partitioning", str, None, "", built=_UNBUILT),
    DefinitionField("destination.optimization", str, None, "", built=_UNBUILT),
    DefinitionField("destination.table_properties", str, None, "", built=_UNBUILT),
    DefinitionField("schedule.frequency", str, None, "", built=_UNBUILT),
    DefinitionField("schedule.time", str, None, "", built=_UNBUILT),
    DefinitionField("schedule.day_of_week", str, None, "", built=_UNBUILT),
    DefinitionField("schedule.timezone", str, "UTC", "", built=("UTC",)),
    DefinitionField("schedule.cron_expression", str, None, "", built=_UNBUILT),
    DefinitionField("schedule.backfill", str, None, "", built=_UNBUILT),
    DefinitionField("webhooks", str, None, "", built=_UNBUILT),
    DefinitionField("quality", str, None, "", built=_UNBUILT),
)

BY_NAME = {f.name: f for f in FIELDS}

# Fields that mean something for an ingestion that the service keeps, and nothing for one load: their `built` there.
_BUILT_IN_SERVICE: dict[str, tuple[Any, ...] | None] = {
    "name": None,
    "status": ("active", "draft"),
    # One that is not registered is accepted with a warning, and fails its runs.
    "cluster_id": None,
    "schedule.frequency": None,
    "schedule.time": None,
    "schedule.day_of_week": None,
    "schedule.timezone": None,
    "schedule.cron_expression": None,
}
SERVICE_FIELDS: tuple[DefinitionField, ...] = tuple(
    replace(f, built=_BUILT_IN_SERVICE[f.path]) if f.path in _BUILT_IN_SERVICE else f for f in FIELDS
)

# What `source.credentials` may hold, by the type of the source.
CREDENTIALS: dict[str, tuple[str, ...]] = {
    "s3": ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region", "endpoint_url"),
    "azure_blob": ("account_name", "account_key", "sas_token", "endpoint_url"),
    "gcs": ("service_account_key", "endpoint_url"),
    "local": (),
}
# Those that are no secret by themselves, and stand in messages that people need.
OPEN_CREDENTIALS = frozenset({"aws_region", "endpoint_url", "account_name"})


def hidden_credentials(credentials: Mapping[str, str]) -> list[str]:
    """The values that nobody may read."""
    return [value for name, value in credentials.items() if name not in OPEN_CREDENTIALS]


def check_value(field: DefinitionField, value: Any) -> None:  # noqa: ANN401 - a value of any field
    """Refuse what is not built, and what has no meaning.

    Raises:
        NotSupportedError: The value has a meaning that is not built.
        InvalidFieldError: It has none.
    """
    if field.built is None or value in field.built:
        return
    choices = [str(b) for b in field.built if b is not None]
    # A field of which only the default is built has its other values to come, listed or not.
    if value in field.known or not (field.usable or field.known):
        advice = f"Use {_listed(choices)}." if choices else "Leave it out."
        raise NotSupportedError(f"{field.path} = {value!r} is not supported.", remedy=advice)
    raise InvalidFieldError(f"{field.path} = {value!r} has no meaning.", remedy=f"Use {_listed(choices)}.")


def _listed(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


class OnFileChange(enum.StrEnum):
    """What a new version of a loaded file does."""

    IGNORE = "ignore"  # nothing; it is noted as changed
    APPEND = "append"  # its rows come beside those of the earlier version
    REPLACE = "replace"  # its rows take the place of those of the earlier version


@dataclass(frozen=True)
class Definition:
    """What a run works by. Frozen into each batch, so that a reload does what was planned, not what is true now."""

    path: str
    file_pattern: str | None
    options: FormatOptions
    provenance: bool = True
    on_file_change: OnFileChange = OnFileChange.IGNORE

    def to_json(self) -> str:
        """One JSON document without secrets."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Definition:
        """What `to_json` wrote."""
        document = json.loads(text)
        options = document.pop("options")
        options["null_values"] = tuple(options["null_values"])
        options["format"] = FileFormat(options["format"])
        # Batches that were claimed by a version without the field have none.
        document["on_file_change"] = OnFileChange(document.get("on_file_change", OnFileChange.IGNORE))
        return cls(options=FormatOptions(**options), **document)


def format_options(values: Mapping[str, Any], file_format: FileFormat, *, tab_separated: bool = False) -> FormatOptions:
    """The reading options among the fields' values.

    Args:
        values: Field name → value; what is missing has its default.
        file_format: What the files are.
        tab_separated: The files' names say that tabs separate their fields.

    Raises:
        InvalidFieldError: A number is out of its range, or a CSV character is none.
    """
    names = (
        "header",
        "quote",
        "escape",
        "encoding",
        "null_values",
        "skip_rows",
        "compression",
        "sample_bytes",
        "infer_timestamps",
        "max_columns",
    )
    chosen = {name: values[name] for name in names if values.get(name) is not None}
    options = replace(FormatOptions(file_format), **chosen)
    delimiter = values.get("delimiter")
    if delimiter is None:
        delimiter = "\t" if tab_separated else ","
    options = replace(options, delimiter={"\\t": "\t"}.get(delimiter, delimiter))
    options = replace(options, null_values=tuple(options.null_values))
    _check_characters(options)
    _check_encoding(options.encoding)
    for name, least in (("skip_rows", 0), ("sample_bytes", 1), ("max_columns", 1)):
        if getattr(options, name) < least:
            raise InvalidFieldError(f"{BY_NAME[name].path} = {getattr(options, name)} must be at least {least}.")
    return options


def _check_characters(options: FormatOptions) -> None:
    given = {"delimiter": options.delimiter, "quote": options.quote}
    if options.escape is not None:
        given["escape"] = options.escape
    for name, value in given.items():
        if len(value) != 1 or value in "\r\n\0":
            raise InvalidFieldError(f"{BY_NAME[name].path} = {value!r} must be one character, and no line end.")
    if options.delimiter == options.quote:
        raise InvalidFieldError("format.options.delimiter and format.options.quote are the same character.")
    if options.delimiter == options.escape:
        raise InvalidFieldError("format.options.delimiter and format.options.escape are the same character.")


def _check_encoding(encoding: str | None) -> None:
    if encoding is None:
        return
    try:
        "a".encode(encoding)
    except (LookupError, ValueError):
        raise InvalidFieldError(
            f"{BY_NAME['encoding'].path} = {encoding!r} is no text encoding that is known here.",
            remedy="Use a name such as utf-8, utf-16, latin-1 or cp1252.",
        ) from None
