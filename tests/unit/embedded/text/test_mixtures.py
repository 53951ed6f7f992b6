"""A column whose values only meet in a string is said to do so, once, whatever the order."""

from __future__ import annotations

from itertools import permutations

import pytest

from app.domain.formats import FileFormat, FormatOptions
from app.domain.types import EMPTY
from app.engines.embedded.text import text_decoder

JSON = FormatOptions(FileFormat.JSON)
CSV = FormatOptions(FileFormat.CSV)


def warnings(options: FormatOptions, data: bytes) -> tuple[str, ...]:
    decoder = text_decoder(options, EMPTY)
    decoder.observe([data])
    decoder.observe([data])
    return decoder.warnings


@pytest.mark.parametrize(
    "values", [*permutations(("1", '"x"', "null")), ("1", "{}", "2"), ("true", "0", "1"), ("[]", "1")]
)
def test_json_that_mixes_is_said_once(values: tuple[str, ...]) -> None:
    data = "".join(f'{{"a": {value}, "b": 1}}\n' for value in values).encode()
    (warning,) = warnings(JSON, data)
    assert '"a"' in warning


def test_a_mixture_below_is_named_by_its_path() -> None:
    (warning,) = warnings(JSON, b'{"a": [{"b": 1}, {"b": "x"}]}\n')
    assert '"a.element.b"' in warning


@pytest.mark.parametrize(
    "values", [("1", "2.5"), ('"2024-01-01"', '"hello"'), ('"x"', "null"), ("1", "99999999999999999999")]
)
def test_what_meets_in_its_own_kind_is_not_said(values: tuple[str, ...]) -> None:
    data = "".join(f'{{"a": {value}}}\n' for value in values).encode()
    assert warnings(JSON, data) == ()


def test_csv_has_words_and_numbers_side_by_side() -> None:
    assert warnings(CSV, b"a\n1\nx\n007\n") == ()
    (warning,) = warnings(CSV, b"a\n1\ntrue\n")
    assert '"a"' in warning
