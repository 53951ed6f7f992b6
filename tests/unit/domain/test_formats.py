from __future__ import annotations

import pytest

from app.domain.formats import FileFormat, format_by_name, is_tab_separated


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", FileFormat.JSON),
        ("a.ndjson", FileFormat.JSON),
        ("A.JSONL", FileFormat.JSON),
        ("s3://b/x/a.json.gz", FileFormat.JSON),
        ("a.csv.zst", FileFormat.CSV),
        ("a.tsv.bz2", FileFormat.CSV),
        ("a.csv.gz.gz", FileFormat.CSV),
        ("a.parquet", FileFormat.PARQUET),
        ("part-0.snappy.parquet", FileFormat.PARQUET),
        ("a.pq", FileFormat.PARQUET),
        ("a.json.bak", None),
        ("json", None),
        ("a.txt", None),
        ("a.gz", None),
        ("gz", None),
        ("folder.json/a", None),
        ("folder.csv/a.json", FileFormat.JSON),
        ("", None),
    ],
)
def test_names_tell_formats(name: str, kind: FileFormat | None) -> None:
    assert format_by_name(name) is kind


@pytest.mark.parametrize(
    ("name", "tabs"), [("a.tsv", True), ("x/A.TSV.gz", True), ("a.csv", False), ("tsv", False), ("x.tsv/a.csv", False)]
)
def test_names_tell_tabs(name: str, *, tabs: bool) -> None:
    assert is_tab_separated(name) is tabs
