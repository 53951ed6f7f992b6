"""Values as people and programs read them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from app.cli.render import count, print_json, print_rows, size


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 KB"), (2_500_000, "2.5 MB"), (7e15, "7000.0 TB")]
)
def test_sizes(size_bytes: float, text: str) -> None:
    assert size(size_bytes) == text


def test_counts() -> None:
    assert (count(1, "row"), count(1_000, "row")) == ("1 row", "1,000 rows")


def test_json_is_one_document_of_plain_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {"d": Decimal("1.10"), "t": datetime(2024, 1, 2, tzinfo=UTC), "day": date(1, 1, 1), "b": b"\x00", "é": "\n"}
    )
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "d": "1.10",
        "t": "2024-01-02T00:00:00+00:00",
        "day": "0001-01-01",
        "b": "AA==",
        "é": "\n",
    }


def test_rows_stand_in_columns_and_on_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("a", "long name"), [(None, "x\ny"), (12345, {"k": [1]})])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["a      long name", "-----  ----------", "NULL   x\\ny", '12345  {"k": [1]}']
