from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.definition import CREDENTIALS, FIELDS
from app.domain.errors import InvalidFieldError, NotSupportedError
from app.domain.ingestions import IngestionStatus, Schedule
from app.services.ingestion_documents import (
    Checked,
    changed_credentials,
    changed_document,
    check_document,
    values_of,
    whole_document,
)
from app.sources import aws, azure, google

PLAIN: dict[str, Any] = {
    "name": "Orders",
    "source": {"type": "s3", "path": "s3://bucket/orders/"},
    "destination": {"database": "shop", "table": "orders"},
}
# The request that the contract promises to take word for word.
PROMISED: dict[str, Any] = {
    "name": "Test Hourly Ingestion", "cluster_id": "cluster_123",
    "source": {"type": "s3", "path": "s3://test-bucket/data/", "file_pattern": "*.json",
               "credentials": {"aws_access_key_id": "test", "aws_secret_access_key": "test",
                               "aws_region": "us-east-1"}},
    "format": {"type": "json", "schema": {"inference": "auto", "evolution_enabled": True}},
    "destination": {"catalog": "spark_catalog", "database": "default", "table": "test_table", "write_mode": "append"},
    "schedule": {"frequency": "hourly", "timezone": "UTC"},
}  # fmt: skip


def check(document: Any) -> Checked:
    return check_document(document, default_catalog="local", home="/home/of/it")


def changed(**parts: Any) -> dict[str, Any]:
    return changed_document(PLAIN, parts)


def test_the_promised_request_is_understood() -> None:
    checked = check(PROMISED)
    assert (checked.name, checked.status) == ("Test Hourly Ingestion", IngestionStatus.ACTIVE)
    assert str(checked.table) == "spark_catalog.default.test_table"
    assert checked.schedule == Schedule("hourly", timezone="UTC")
    assert checked.credentials == PROMISED["source"]["credentials"]
    assert "credentials" not in checked.document["source"]
    assert json.loads(json.dumps(checked.document)) == checked.document
    assert values_of(checked.document)["file_pattern"] == "*.json"


def test_every_default_of_the_table_of_fields_is_accepted() -> None:
    document: dict[str, Any] = {}
    for field in FIELDS:
        *groups, name = field.path.split(".")
        inner = document
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = list(field.default) if isinstance(field.default, tuple) else field.default
    document["webhooks"] = []
    document["schedule"] = None
    whole = changed_document(changed_document(document, {}), PLAIN)
    assert check(whole).schedule is None


def test_what_is_not_given_is_filled_in_as_little_as_possible() -> None:
    checked = check({**PLAIN, "source": {"path": "landing/*.csv"}})
    assert checked.document["source"] == {"path": "landing/*.csv", "type": "local"}
    assert str(checked.table) == "local.shop.orders"


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"bogus": 1}, "bogus"),
        ({"source": {"bogus": {}}}, "source.bogus"),
        ({"source": "s3://b/"}, "source"),
        ({"format": {"options": [1]}}, "format.options"),
        ({"name": None}, "name"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 5}, "name"),
        ({"status": "paused"}, "status"),
        ({"source": {"path": None}}, "source.path"),
        ({"source": {"path": ""}}, "source.path"),
        ({"source": {"path": "ftp://x/"}}, "source.path"),
        ({"source": {"type": "gcs"}}, "source.type"),
        ({"source": {"file_pattern": "../x"}}, "source.file_pattern"),
        ({"source": {"on_file_change": "delete"}}, "source.on_file_change"),
        ({"source": {"credentials": {"account_key": "x"}}}, "source.credentials.account_key"),
        ({"source": {"credentials": {"bogus": "x"}}}, "source.credentials.bogus"),
        ({"source": {"credentials": {"aws_region": 5}}}, "source.credentials.aws_region"),
        ({"source": {"credentials": []}}, "source.credentials"),
        ({"format": {"options": {"header": "yes"}}}, "format.options.header"),
        ({"format": {"options": {"header": 1}}}, "format.options.header"),
        ({"format": {"options": {"skip_rows": True}}}, "format.options.skip_rows"),
        ({"format": {"options": {"skip_rows": -1}}}, "format.options.skip_rows"),
        ({"format": {"options": {"skip_rows": 1 << 70}}}, "format.options.skip_rows"),
        ({"format": {"options": {"null_values": ["a", 1]}}}, "format.options.null_values"),
        ({"format": {"options": {"delimiter": "ab"}}}, "format.options.delimiter"),
        ({"format": {"options": {"encoding": "klingon"}}}, "format.options.encoding"),
        ({"destination": {"table": "a.b"}}, "destination.table"),
        ({"destination": {"table": "a/b"}}, "destination"),
        ({"destination": {"database": "\ud800"}}, "destination.database"),
        ({"destination": {"catalog": "x" * 20_000}}, "destination.catalog"),
        ({"schedule": {}}, "schedule.frequency"),
        ({"schedule": {"time": None}}, "schedule.frequency"),
        ({"schedule": {"time": "10:00"}}, "schedule.frequency"),
        ({"schedule": {"frequency": "daily", "time": "25:99"}}, "schedule.time"),
        ({"schedule": {"frequency": "custom", "cron_expression": "x"}}, "schedule.cron_expression"),
        ({"schedule": {"frequency": "hourly", "timezone": "Mars/Olympus"}}, "schedule.timezone"),
        ({"schedule": {"frequency": "hourly", "timezone": "localtime"}}, "schedule.timezone"),
        ({"schedule": {"frequency": "weekly", "day_of_week": [1]}}, "schedule.day_of_week"),
        (
            {"source": {"credentials": {"endpoint_url": "http://name:word@host:9000"}}},
            "source.credentials.endpoint_url",
        ),
        ({"source": {"credentials": {"endpoint_url": "host:9000"}}}, "source.credentials.endpoint_url"),
        ({"source": {"credentials": {"endpoint_url": "http://host:99999"}}}, "source.credentials.endpoint_url"),
        ({"source": {"credentials": {"aws_session_token": "a\nb"}}}, "source.credentials.aws_session_token"),
        ({"cluster_id": ""}, "cluster_id"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_field(parts: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        check(changed_document(PLAIN, parts) if "name" not in parts else {**PLAIN, **parts})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"format": {"type": "avro"}}, "format.type"),
        ({"source": {"path": "sftp://h/x", "type": "sftp"}}, "source.type"),
        ({"quality": {"checks": []}}, "quality"),
        ({"schedule": {"frequency": "hourly", "backfill": {"from": "2020-01-01"}}}, "schedule.backfill"),
        ({"destination": {"write_mode": "merge"}}, "destination.write_mode"),
        ({"destination": {"merge_keys": ["id"]}}, "destination.merge_keys"),
        ({"format": {"schema": {"inference": "manual"}}}, "format.schema.inference"),
    ],
)
def test_what_is_not_built_is_refused_by_name(parts: dict[str, Any], field: str) -> None:
    with pytest.raises(NotSupportedError) as refused:
        check(changed(**parts))
    assert refused.value.field == field


def test_no_refusal_repeats_a_credential() -> None:
    secret = "wJalrXUtnFEMI"
    for credentials in ({"aws_secret_access_key": [secret]}, {"account_key": secret}, secret, {"x": secret}):
        with pytest.raises(InvalidFieldError) as refused:
            check(changed(source={"credentials": credentials}))
        assert secret not in str(refused.value)


def test_the_names_of_credentials_are_those_that_sources_take() -> None:
    assert {"s3": aws.FIELDS, "azure_blob": azure.FIELDS, "gcs": google.FIELDS, "local": ()} == CREDENTIALS


def test_a_service_accounts_key_may_be_a_document() -> None:
    key = {"type": "service_account", "private_key": "x"}
    document = {**PLAIN, "source": {"path": "gs://b/", "credentials": {"service_account_key": key}}}
    assert json.loads(check(document).credentials["service_account_key"]) == key


def test_what_is_nested_without_end_is_refused() -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"source": deep, "service_account_key": deep}
    for document in (
        deep,
        {**PLAIN, "source": {"path": "gs://b/", "credentials": deep}},
        changed(name="n") | {"quality": deep},
    ):
        with pytest.raises((InvalidFieldError, NotSupportedError)):
            check(document)
    with pytest.raises(InvalidFieldError, match="deeply"):
        changed_document(PLAIN, deep)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_PATHS = sorted({"source.path", "destination.catalog", "source.credentials", *(f.path for f in FIELDS)})


@given(path=st.sampled_from(_PATHS), value=_JSON)
def test_whatever_stands_in_a_field_is_understood_or_refused(path: str, value: Any) -> None:
    *groups, name = path.split(".")
    part: dict[str, Any] = {name: value}
    for group in reversed(groups):
        part = {group: part}
    try:
        json.dumps(check(changed_document(PLAIN, part)).document)
    except (InvalidFieldError, NotSupportedError) as refused:
        if not refused.field:
            raise


# --- changes -------------------------------------------------------------------------------------------------------


def test_a_change_names_what_it_changes_null_removes() -> None:
    before = whole_document(
        "n", IngestionStatus.ACTIVE, {"source": {"path": "p", "file_pattern": "*.x"}, "cluster_id": "c"}
    )
    after = changed_document(before, {"source": {"file_pattern": None}, "cluster_id": None, "name": "m"})
    assert after == {"name": "m", "status": "active", "source": {"path": "p"}}
    assert changed_document(before, {}) == before


def test_another_frequency_begins_the_schedule_anew() -> None:
    before = {"schedule": {"frequency": "weekly", "day_of_week": "monday", "time": "10:00", "timezone": "Asia/Tokyo"}}
    after = changed_document(before, {"schedule": {"frequency": "daily", "time": "14:30"}})
    assert after["schedule"] == {"frequency": "daily", "time": "14:30", "timezone": "Asia/Tokyo"}
    same = changed_document(before, {"schedule": {"time": "11:00"}})
    assert same["schedule"] == {**before["schedule"], "time": "11:00"}
    assert "schedule" not in changed_document(before, {"schedule": None})


def test_credentials_change_one_by_one() -> None:
    kept = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    assert changed_credentials(kept, {"name": "x"}) is None
    assert changed_credentials(kept, {"source": {"path": "x"}}) is None
    assert changed_credentials(kept, {"source": {"credentials": None}}) == {}
    assert changed_credentials(kept, {"source": {"credentials": {"aws_session_token": "t"}}}) == {
        **kept,
        "aws_session_token": "t",
    }
    assert changed_credentials(kept, {"source": {"credentials": {"aws_access_key_id": None}}}) == {
        "aws_secret_access_key": "b"
    }


def test_kept_keys_are_not_sent_to_a_new_address() -> None:
    kept = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    elsewhere = {"endpoint_url": "https://elsewhere"}
    with pytest.raises(InvalidFieldError) as refused:
        changed_credentials(kept, {"source": {"credentials": elsewhere}})
    assert refused.value.field == "source.credentials.aws_access_key_id"
    whole = {"aws_access_key_id": "a", "aws_secret_access_key": "b", **elsewhere}
    assert changed_credentials(kept, {"source": {"credentials": whole}}) == whole
