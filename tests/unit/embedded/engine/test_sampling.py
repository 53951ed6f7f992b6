"""What an inference looks at: everything when it is little, else something of everything."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.engines.embedded.sampling import (
    MIN_SHARE_BYTES,
    cut_head,
    cut_middle,
    head_only,
    header_lines,
    plan_samples,
    slices,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = FormatOptions(FileFormat.JSON)
CSV = FormatOptions(FileFormat.CSV)


def files(*sizes: int) -> list[SourceFile]:
    return [SourceFile(f"s3://b/{i:07}", "v", size, NOW) for i, size in enumerate(sizes)]


def test_little_is_looked_at_whole() -> None:
    samples = plan_samples(files(10, 0, 1000), 64 * 1024)

    assert all(sample.whole for sample in samples)
    assert len(samples) == 3


def test_what_small_files_leave_goes_to_large_ones() -> None:
    small, large, larger = plan_samples(files(100_000, 50_000_000, 60_000_000), 10_000_000)

    assert small.whole
    assert not large.whole
    assert large.share_bytes == larger.share_bytes == (10_000_000 - 100_000) // 2


def test_of_very_many_files_some_are_looked_at_from_first_to_last() -> None:
    everything = files(*[10_000_000] * 100_000)

    samples = plan_samples(everything, 64 * 1024 * 1024)

    assert len(samples) == 1024
    assert (samples[0].file, samples[-1].file) == (everything[0], everything[-1])
    gaps = [int(b.file.key[-7:]) - int(a.file.key[-7:]) for a, b in itertools.pairwise(samples)]
    assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300), st.integers(1, 10**8))
def test_the_bound_is_kept(sizes: list[int], sample_bytes: int) -> None:
    samples = plan_samples(files(*sizes), sample_bytes)

    looked_at = sum(min(sample.file.size_bytes, sample.share_bytes) for sample in samples)
    assert 1 <= len(samples) <= len(sizes)
    assert looked_at <= max(sample_bytes, 2 * MIN_SHARE_BYTES) + len(samples)
    assert len({sample.file.key for sample in samples}) == len(samples)


@given(st.integers(1, 10**9), st.integers(1, 10**8))
def test_slices_lie_in_the_file_one_after_the_other(size: int, share: int) -> None:
    found = slices(size, share)

    assert found[0][0] == 0
    assert found[-1][1] == size
    assert all(0 <= start < stop <= size for start, stop in found)
    assert sum(stop - start for start, stop in found) <= max(share, 3)


NDJSON = b'{"a": 1}\n{"a": 22}\n{"a": 333}\n'
ARRAY = b'[{"a": "]}"}, {"b": [1, {"c": "\\"}"}]},\n {"d": 4}, {"e": 5}]'
PRETTY = b'{\n  "a": {"x": 1}\n}\n{\n  "b": 2\n}\n'


@pytest.mark.parametrize("size", range(9, len(NDJSON) + 1))
def test_the_head_of_lines_is_cut_behind_a_line(size: int) -> None:
    cut = cut_head(NDJSON[:size], JSON)

    assert NDJSON.startswith(cut)
    assert cut.endswith(b"\n")
    assert size - len(cut) < 11


@pytest.mark.parametrize("size", range(1, len(ARRAY)))
def test_the_head_of_an_array_is_an_array_of_whole_records(size: int) -> None:
    cut = cut_head(ARRAY[:size], JSON)

    records = json.loads(cut) if cut else []
    assert records == json.loads(ARRAY)[: len(records)]
    assert len(records) >= (ARRAY[:size].count(b"{") - 3)


def test_the_head_of_spread_out_records_ends_behind_one() -> None:
    assert cut_head(PRETTY[:-4], JSON) == PRETTY[: PRETTY.index(b"}\n{") + 1]
    assert cut_head(b'{\n "a": 1', JSON) == b""


def test_the_head_of_csv_is_not_cut_inside_quotes() -> None:
    assert cut_head(b'a,b\n1,"x\ny"\n2,"z\nw', CSV) == b'a,b\n1,"x\ny"\n'
    assert cut_head(b"a,b\n1,2\n3", CSV) == b"a,b\n1,2\n"
    assert cut_head(b'a,"b\nc', CSV) == b""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_the_head_of_wide_text_is_cut_between_characters(encoding: str) -> None:
    # U+0A0A and its like hold the byte of a line break, but are none.
    text = "a,b\n1,\u0a0a\u0a0a\n2,ab".encode(encoding)

    for missing in range(6):
        assert cut_head(text[: len(text) - missing], CSV).decode(encoding) == "a,b\n1,\u0a0a\u0a0a\n"


@pytest.mark.parametrize(
    ("head", "options", "expected"),
    [
        (NDJSON, JSON, False),
        (b"\xef\xbb\xbf" + NDJSON, JSON, False),
        (ARRAY, JSON, True),
        (PRETTY, JSON, True),
        (b'{"a": 1}', JSON, True),
        (b"a,b\n1,2\n", CSV, False),
        (b'a,b\n"1",2\n3,"4', CSV, False),
        (b'a,b\n"1\n2",3\n', CSV, True),
        ("a\n1\n".encode("utf-16"), CSV, True),
        (b"a\n1\n", FormatOptions(FileFormat.CSV, encoding="UTF_16_LE"), True),
        (b"a\n1\n", FormatOptions(FileFormat.CSV, encoding="latin-1"), False),
        (b'a\n"1\n', FormatOptions(FileFormat.CSV, quote=""), False),
    ],
)
def test_only_files_of_lines_are_looked_at_further_on(head: bytes, options: FormatOptions, *, expected: bool) -> None:
    assert head_only(head, options) == expected


def test_a_slice_begins_and_ends_with_whole_lines() -> None:
    assert cut_middle(b"tail of one\n1,2\n3,4\n5,", to_end=False) == b"1,2\n3,4\n"
    assert cut_middle(b"tail of one\n1,2\n3,4", to_end=True) == b"1,2\n3,4"
    assert cut_middle(b"no line ends here", to_end=True) == b""
    assert cut_middle(b"tail\nhead", to_end=False) == b""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (CSV, b"a,b\n"),
        (FormatOptions(FileFormat.CSV, skip_rows=1), b"a,b\n1,2\n"),
        (FormatOptions(FileFormat.CSV, header=False), b""),
        (JSON, b""),
    ],
)
def test_a_slice_of_csv_needs_the_header(options: FormatOptions, expected: bytes) -> None:
    assert header_lines(b"a,b\n1,2\n3,4\n", options) == expected
