from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import Category, FileError
from app.engines.embedded.text.pieces import as_utf8, at_record_ends, check_encoding, growing, reblock
from tests.unit.embedded.text.roads import cut

LINES = st.lists(st.sampled_from([b"a", b"\n", b"xyz", b'"', b"\r\n", b""]), max_size=40)


@given(LINES, st.integers(1, 9))
def test_no_byte_is_lost_or_moved(chunks: list[bytes], size: int) -> None:
    whole = b"".join(chunks)
    assert b"".join(reblock(chunks, size)) == whole
    assert b"".join(growing(chunks)) == whole
    assert b"".join(at_record_ends(reblock(chunks, size), b'"')) == whole


def test_pieces_end_in_newlines_where_there_are_some() -> None:
    assert all(piece.endswith(b"\n") for piece in list(reblock([b"aa\nbb\n" * 50 + b"end"], 16))[:-1])


def test_a_newline_inside_quotes_is_no_place_to_cut() -> None:
    pieces = list(at_record_ends([b'1,2\n"a\n', b'b",3\n4,5\n'], b'"'))
    assert pieces == [b"1,2\n", b'"a\nb",3\n4,5\n']


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_marks_say_the_encoding(encoding: str, size: int) -> None:
    text = "ä😀\nx"
    assert b"".join(as_utf8(cut(text.encode(encoding), size), None)) == text.encode()


def test_a_mark_that_the_option_leaves_is_taken_off() -> None:
    assert b"".join(as_utf8(["\ufeffa".encode("utf-16-le")], "utf-16-le")) == b"a"


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xff\xfe\x00\xd8a\x00", b"\xff\xfe\x00\x00\x00\xd8\x00\x00"])
def test_broken_encodings_name_a_line(data: bytes) -> None:
    with pytest.raises(FileError) as caught:
        b"".join(as_utf8([data], None))
    assert (caught.value.category, caught.value.line) == (Category.DATA_MALFORMED, 1)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8_sig"])
def test_utf8_needs_no_decoding(name: str) -> None:
    assert check_encoding(name) is None
