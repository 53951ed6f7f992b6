"""Definitions are read strictly, mean the same in JSON and YAML, and are never quoted when they are broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.documents import read_document
from app.domain.errors import InvalidFieldError

SECRET = "a-very-secret-key"


def read(folder: Path, text: str | bytes, name: str = "x.yaml") -> dict[str, object]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(str(path))


def test_yaml_means_what_json_says(tmp_path: Path) -> None:
    text = """
        name: Orders   # a comment
        source: {path: s3://b/p/, file_pattern: "*.json"}
        format: {options: {header: true, null_values: [no, 'null', "", ~], skip_rows: 2}}
        schedule: {frequency: daily, time: 14:30, day_of_week: null}
        version: 2026-01-01
        octal: 007
        number: -1.5
        text: '5'
        1: one
    """
    document = {
        "name": "Orders",
        "source": {"path": "s3://b/p/", "file_pattern": "*.json"},
        "format": {"options": {"header": True, "null_values": ["no", "null", "", None], "skip_rows": 2}},
        "schedule": {"frequency": "daily", "time": "14:30", "day_of_week": None},
        "version": "2026-01-01",
        "octal": "007",
        "number": -1.5,
        "text": "5",
        "1": "one",
    }
    assert read(tmp_path, text) == document
    for name in ("x.json", "x.yaml", "x"):
        assert read(tmp_path, json.dumps(document), name) == document
    assert read(tmp_path, "\ufeffname: x", "x") == {"name": "x"}


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("x.json", f'{{"key": "{SECRET}", }}', "Illegal trailing comma|Expecting property name.*line 1 column"),
        ("x.json", f'{{"key": 1, "key": "{SECRET}"}}', "the name 'key' stands twice in one object"),
        ("x.json", '{"key": NaN}', "NaN is no number of JSON"),
        ("x.json", "[1]", "has to hold one object"),
        ("x.json", '{"a":' * 100_000, "nested too deeply|no JSON"),
        ("x.yaml", f"key: {SECRET}\nkey: 2", "the name 'key' stands twice in one object, line 2"),
        ("x.yaml", f"a: &x {SECRET}\nb: *x", "an alias .* stands on line 2"),
        ("x.yaml", f"a: !!python/object:os.system {SECRET}", "the tag .* has no meaning here, line 1"),
        ("x.yaml", "a: !!binary aGk=", "the tag .* has no meaning here"),
        ("x.yaml", f"a: 1\n---\nb: {SECRET}", "another document"),
        ("x.yaml", f"a: [{SECRET}", "line 1"),
        ("x.yaml", f"? [{SECRET}]\n: b", "a name is no text"),
        ("x.yaml", f"a: {SECRET}\n\tb: 1", "line 2"),
        ("x.yaml", f"- {SECRET}", "has to hold one object"),
        ("x.yaml", f"'{SECRET}\x00'", "a character that YAML does not allow"),
        ("x.yaml", "[" * 10_000, "nested too deeply"),
        ("x.yaml", " \n", "is empty"),
        ("x.yaml", b"a: \xff\xfe", "is not UTF-8, at byte 3"),
        ("x.yaml", "a: " + "x" * (1 << 20), "is larger than a definition may be"),
    ],
)
def test_what_is_broken_is_said_plainly(tmp_path: Path, name: str, text: str | bytes, what: str) -> None:
    with pytest.raises(InvalidFieldError, match=what) as raised:
        read(tmp_path, text, name)
    assert str(tmp_path / name) in raised.value.message
    assert SECRET not in str(raised.value)


def test_a_file_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(InvalidFieldError, match="cannot be read: No such file or directory"):
        read_document(str(tmp_path / "nowhere.json"))
    with pytest.raises(InvalidFieldError, match="cannot be read: Is a directory"):
        read_document(str(tmp_path))
