from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from app.domain.definition import (
    BY_NAME,
    FIELDS,
    Definition,
    DefinitionField,
    OnFileChange,
    check_value,
    format_options,
)
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.domain.formats import FileFormat, FormatOptions

# Where each field that can be chosen ends up; the others can only have their default.
OPTIONS = {f.name for f in fields(FormatOptions)} - {"format"}
DEFINITION = {"file_pattern", "provenance", "on_file_change"}
# `format` names the options' format; `source_type` is held against the path; `on_schema_change` has one built meaning.
ELSEWHERE = {"complete_when", "format", "source_type", "on_schema_change", "compression"}

BEYOND = {
    "name": "orders",
    "frequency": "hourly",
    "time": "14:30",
    "day_of_week": "monday",
    "timezone": "Europe/Berlin",
    "cron_expression": "0 * * * *",
    "backfill": "all",
    "cluster_id": "cluster_123",
    "comment": "#",
    "footer_rows": 1,
    "header_rows": 2,
    "date_format": "%d",
    "timestamp_format": "%d",
    "schema_json": "{}",
    "hints": "a long",
    "max_bad_rows": "5",
    "merge_keys": "id",
    "partitioning": "day(ts)",
    "optimization": "x",
    "table_properties": "x",
    "webhooks": "http://x",
    "quality": "x",
}


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.path)
def test_every_default_is_accepted(field: DefinitionField) -> None:
    check_value(field, field.default)


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.path)
def test_everything_built_is_accepted(field: DefinitionField) -> None:
    for value in field.built or ():
        check_value(field, value)


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.path)
def test_what_has_a_meaning_that_is_not_built_is_refused_by_name(field: DefinitionField) -> None:
    for value in field.known:
        with pytest.raises(NotSupportedError, match=field.path.replace(".", r"\.")) as caught:
            check_value(field, value)
        assert caught.value.advice


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.path)
def test_no_field_is_accepted_and_ignored(field: DefinitionField) -> None:
    """What can be chosen has an effect, what has none can only be left at its default."""
    if field.usable:
        assert field.name in OPTIONS | DEFINITION | ELSEWHERE
        return
    assert field.name not in OPTIONS | DEFINITION
    beyond = [*field.known] or [BEYOND[field.name]]
    for value in beyond:
        with pytest.raises(NotSupportedError, match=field.path.replace(".", r"\.")):
            check_value(field, value)


@pytest.mark.parametrize("field", [f for f in FIELDS if f.usable and f.built], ids=lambda f: f.path)
def test_a_value_without_meaning_is_refused_with_the_choices(field: DefinitionField) -> None:
    with pytest.raises(InvalidFieldError, match="has no meaning") as caught:
        check_value(field, "nonsense")
    assert str(next(b for b in field.built or () if b is not None)) in caught.value.advice


def test_names_are_told_apart() -> None:
    assert len(BY_NAME) == len(FIELDS)


CHANGED = {
    "header": False,
    "delimiter": ";",
    "quote": "'",
    "escape": "\\",
    "encoding": "latin-1",
    "null_values": ("NA", ""),
    "skip_rows": 3,
    "compression": "gzip",
    "sample_bytes": 7,
    "infer_timestamps": False,
    "max_columns": 9,
}


def test_every_option_reaches_the_reader() -> None:
    assert set(CHANGED) == OPTIONS
    for name, value in CHANGED.items():
        options = format_options({name: value}, FileFormat.CSV)
        assert options == replace(FormatOptions(FileFormat.CSV), **{name: value}), name  # type: ignore[arg-type]


def test_defaults_of_fields_are_those_of_options() -> None:
    assert format_options({}, FileFormat.JSON) == FormatOptions(FileFormat.JSON)
    for name in OPTIONS - {"delimiter"}:
        assert BY_NAME[name].default == getattr(FormatOptions(FileFormat.JSON), name), name


def test_tabs_separate_where_names_say_so() -> None:
    assert format_options({}, FileFormat.CSV, tab_separated=True).delimiter == "\t"
    assert format_options({"delimiter": "|"}, FileFormat.CSV, tab_separated=True).delimiter == "|"
    assert format_options({"delimiter": "\\t"}, FileFormat.CSV).delimiter == "\t"


@pytest.mark.parametrize(
    "values",
    [
        {"delimiter": ";;"},
        {"delimiter": "\n"},
        {"quote": ""},
        {"quote": "\0"},
        {"escape": "ab"},
        {"delimiter": '"'},
        {"delimiter": "\\", "escape": "\\"},
        {"skip_rows": -1},
        {"sample_bytes": 0},
        {"max_columns": 0},
        {"encoding": "klingon"},
        {"encoding": "base64"},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(InvalidFieldError, match=r"format\."):
        format_options(values, FileFormat.CSV)


def test_an_escape_that_is_the_quote_is_the_doubling_of_quotes() -> None:
    assert format_options({"escape": '"'}, FileFormat.CSV).escape == '"'


def test_a_definition_comes_back_from_json_as_it_was() -> None:
    options = format_options(CHANGED, FileFormat.CSV)
    for definition in (
        Definition("s3://b/é/\udcff", "*.csv", options, provenance=False),
        Definition("/data", None, FormatOptions(FileFormat.PARQUET)),
        Definition("/data", None, FormatOptions(FileFormat.PARQUET), on_file_change=OnFileChange.REPLACE),
    ):
        again = Definition.from_json(definition.to_json())
        assert again == definition
        assert isinstance(again.options.format, FileFormat)
        assert isinstance(again.on_file_change, OnFileChange)
        assert hash(again) == hash(definition)


def test_a_definition_of_before_new_versions_could_be_loaded_ignores_them() -> None:
    document = json.loads(Definition("/data", None, FormatOptions(FileFormat.JSON)).to_json())
    del document["on_file_change"]
    assert Definition.from_json(json.dumps(document)).on_file_change is OnFileChange.IGNORE


def test_a_definition_holds_no_secret() -> None:
    document = json.loads(Definition("s3://b/", None, FormatOptions(FileFormat.JSON)).to_json())
    assert set(document) == {"path", "file_pattern", "options", "provenance", "on_file_change"}
