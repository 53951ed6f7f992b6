"""Data sets are the same every time, and hold what their checks count on."""

from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import pytest

from bench.data import EXAMPLE_ROWS, SPECS, data_set, key_folder, key_names, sum_of_ids

SCALE = 0.0005


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["small", "gz", "csv", "parquet", "nested"])
def test_one_seed_makes_one_data_set(name: str, tmp_path: Path) -> None:
    one = data_set(tmp_path / "one", name, scale=SCALE)
    again = data_set(tmp_path / "again", name, scale=SCALE)
    other = data_set(tmp_path / "other", name, scale=SCALE, seed=8)
    assert contents(one.source) == contents(again.source)
    assert contents(one.source) != contents(other.source)
    assert set(contents(one.source)) == set(contents(other.source))


@pytest.mark.parametrize("name", SPECS)
def test_rows_and_ids_are_what_the_data_set_says(name: str, tmp_path: Path) -> None:
    made = data_set(tmp_path, name, scale=SCALE)
    reader = {"ndjson": "read_json", "csv": "read_csv", "parquet": "read_parquet"}[made.kind]
    query = f"select count(*), sum(event_id), min(event_id) from {reader}('{made.source}/*')"
    assert duckdb.execute(query).fetchone() == (made.rows, made.id_sum, EXAMPLE_ROWS)
    example = f"select count(*), max(event_id) from {reader}('{made.example}/*')"
    assert duckdb.execute(example).fetchone() == (EXAMPLE_ROWS, EXAMPLE_ROWS - 1)
    assert len(list(made.source.iterdir())) == made.files
    assert sum(path.stat().st_size for path in made.source.iterdir()) == made.stored_bytes


def test_a_sum_of_ids_is_that_of_the_numbers() -> None:
    assert sum_of_ids(3) == sum(range(EXAMPLE_ROWS, EXAMPLE_ROWS + 3))


def test_the_size_follows_the_scale(tmp_path: Path) -> None:
    made = data_set(tmp_path, "gz", scale=0.01)
    text = sum(len(gzip.decompress(data)) for data in contents(made.source).values())
    assert text == pytest.approx(0.01 * 300e6, rel=0.05)
    small = data_set(tmp_path, "small", scale=0.002)
    assert small.files == 10
    assert all(len(data) == pytest.approx(10_000, rel=0.05) for data in contents(small.source).values())


def test_a_data_set_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    made = data_set(tmp_path, "small", scale=SCALE)
    times = [path.stat().st_mtime_ns for path in sorted(made.source.iterdir())]
    assert data_set(tmp_path, "small", scale=SCALE) == made
    assert [path.stat().st_mtime_ns for path in sorted(made.source.iterdir())] == times


def test_one_that_was_made_otherwise_is_made_anew(tmp_path: Path) -> None:
    made = data_set(tmp_path, "small", scale=SCALE)
    before = contents(made.source)
    assert contents(data_set(tmp_path, "small", scale=SCALE, seed=8).source) != before
    assert contents(data_set(tmp_path, "small", scale=SCALE).source) == before


def test_one_that_was_broken_off_is_made_anew(tmp_path: Path) -> None:
    made = data_set(tmp_path, "small", scale=SCALE)
    whole = contents(made.source)
    (made.folder / "data.json").unlink()
    next(made.source.iterdir()).unlink()
    assert contents(data_set(tmp_path, "small", scale=SCALE).source) == whole


def test_keys_rise_and_are_as_many_as_asked_for(tmp_path: Path) -> None:
    folder = key_folder(tmp_path, 2_500)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))
    assert found == list(key_names(2_500))
    assert len(found) == 2_500
    assert all(path.stat().st_size for path in folder.rglob("*.json"))
