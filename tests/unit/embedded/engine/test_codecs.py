"""Decompression: whole or an error, never a short success, and never more than a memory holds."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import Category, FileError
from app.engines.embedded.codecs import MAX_RATIO, RATIO_FREE_BYTES, decompress, detect, is_plain

TEXT = b"".join(b'{"id": %d, "name": "name %d"}\n' % (i, i * 7919) for i in range(50_000))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bz2": bz2.compress, "zstd": zstd}
codecs = pytest.mark.parametrize("codec", COMPRESS)


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def expand(stored: Iterable[bytes], compression: str = "auto") -> bytes:
    return b"".join(decompress(stored, compression))


@codecs
@pytest.mark.parametrize("chunk_bytes", [1, 1000, 10**9])
def test_compression_is_known_by_content(codec: str, chunk_bytes: int) -> None:
    text = TEXT[:5000] if chunk_bytes == 1 else TEXT
    assert expand(chunks(COMPRESS[codec](text), chunk_bytes)) == text


@codecs
def test_a_file_of_many_members_is_read_to_its_end(codec: str) -> None:
    stored = b"".join(COMPRESS[codec](part) for part in (b"one\n", b"", b"two\n", TEXT, b"three\n"))

    for size in (7, 4096, len(stored)):
        assert expand(chunks(stored, size)) == b"one\ntwo\n" + TEXT + b"three\n"


@codecs
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.999])
def test_a_cut_stream_is_an_error(codec: str, kept: float) -> None:
    stored = COMPRESS[codec](TEXT)

    with pytest.raises(FileError) as caught:
        expand([stored[: int(len(stored) * kept)]])

    assert caught.value.category is Category.DATA_MALFORMED
    assert caught.value.offset is not None
    assert caught.value.offset <= len(TEXT)


@codecs
def test_every_cut_is_noticed_at_the_end_of_the_stream_and_between_members(codec: str) -> None:
    stored = COMPRESS[codec](b"a,b\n1,2\n")

    for missing in range(1, len(stored)):
        with pytest.raises(FileError):
            expand([stored[:-missing]], codec)
    for missing in range(1, len(stored)):
        with pytest.raises(FileError):
            expand([stored + stored[:-missing]])


@codecs
def test_a_flipped_bit_in_the_data_is_an_error(codec: str) -> None:
    stored = bytearray(COMPRESS[codec](TEXT))
    stored[len(stored) // 2] ^= 0x10

    with pytest.raises(FileError) as caught:
        expand([bytes(stored)])

    assert caught.value.category is Category.DATA_MALFORMED


def test_a_wrong_checksum_is_an_error() -> None:
    stored = bytearray(gzip.compress(b"a,b\n1,2\n"))
    stored[-6] ^= 0xFF

    with pytest.raises(FileError, match="damaged"):
        expand([bytes(stored)])


@codecs
def test_something_else_after_the_stream_is_an_error(codec: str) -> None:
    with pytest.raises(FileError, match="something else follows"):
        expand([COMPRESS[codec](b"1\n") + b"trailing text"])


@codecs
def test_zero_bytes_after_the_stream_are_padding(codec: str) -> None:
    assert expand([COMPRESS[codec](b"1\n"), b"\x00" * 512]) == b"1\n"


@codecs
def test_an_empty_stream_has_no_bytes(codec: str) -> None:
    assert expand([COMPRESS[codec](b"")]) == b""
    assert expand([], codec) == b""
    assert expand([b""]) == b""


def test_plain_bytes_stay_as_they_are() -> None:
    assert expand(chunks(TEXT, 1000)) == TEXT
    assert expand([b"BZh9 is how this line begins\n"]) == b"BZh9 is how this line begins\n"


def test_none_leaves_compressed_bytes_alone() -> None:
    stored = gzip.compress(b"x")

    assert expand([stored], "none") == stored


@pytest.mark.parametrize(("named", "other"), [(a, b) for a, b in itertools.product(COMPRESS, repeat=2) if a != b])
def test_a_named_compression_that_the_file_does_not_have_is_an_error(named: str, other: str) -> None:
    for stored in (COMPRESS[other](b"x"), b"plain text, and not compressed\n"):
        with pytest.raises(FileError, match=f"says {named}") as caught:
            expand([stored], named)
        assert caught.value.category is Category.FORMAT_OPTIONS_INVALID


def _zip() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("zip", _zip()),
        ("xz", lzma.compress(b"x")),
        ("lz4", b"\x04\x22\x4d\x18" + b"x" * 20),
        ("snappy", b"\xff\x06\x00\x00sNaPpY" + b"x" * 20),
    ],
)
def test_a_compression_that_is_not_read_is_named(name: str, stored: bytes) -> None:
    with pytest.raises(FileError, match=f"compressed with {name}") as caught:
        expand(chunks(stored, 3))

    assert caught.value.category is Category.DATA_MALFORMED


def _bomb(codec: str) -> bytes:
    """A gigabyte of zeros."""
    block = bytes(2**20)
    if codec == "gzip":
        press = zlib.compressobj(1, wbits=31)
        return b"".join([*(press.compress(block) for _ in range(1024)), press.flush()])
    if codec == "bz2":
        # The same small member many times over decompresses to as much, and is made at once.
        return bz2.compress(block * 8) * 128
    press_zstd = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([*(press_zstd.compress(block) for _ in range(1024)), press_zstd.flush()])


@codecs
def test_a_bomb_is_stopped(codec: str) -> None:
    produced = 0
    with pytest.raises(FileError) as caught:  # noqa: PT012 - how far it came is what matters
        for piece in decompress([_bomb(codec)]):
            produced += len(piece)

    assert caught.value.category is Category.LIMIT_EXCEEDED
    assert produced < 2**30 * 0.9


def test_a_small_file_may_be_as_dense_as_it_likes() -> None:
    data = bytes(RATIO_FREE_BYTES // 4)
    stored = gzip.compress(data, 9)
    assert len(stored) * MAX_RATIO < len(data)

    assert expand([stored]) == data


def test_pieces_stay_small_whatever_the_chunks() -> None:
    stored = gzip.compress(TEXT * 20, 1)

    assert max(map(len, decompress([stored]))) <= 2**22


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_read_whole_or_refused(data: bytes) -> None:
    try:
        found = detect(data)
    except FileError:
        return
    if found == "none":
        assert expand([data]) == data


@given(st.lists(st.binary(max_size=300), max_size=4), st.sampled_from(sorted(COMPRESS)), st.integers(1, 50))
@settings(max_examples=100)
def test_what_was_compressed_comes_back(parts: list[bytes], codec: str, chunk_bytes: int) -> None:
    stored = b"".join(map(COMPRESS[codec], parts))

    assert expand(chunks(stored, chunk_bytes)) == b"".join(parts)


@pytest.mark.parametrize("compression", ["auto", "none", *COMPRESS])
@pytest.mark.parametrize(
    "stored",
    [b"", b"{}\n", TEXT[:100], *(make(TEXT[:100]) for make in COMPRESS.values())],
    ids=["nothing", "braces", "text", *COMPRESS],
)
def test_what_is_plain_needs_no_decompression(stored: bytes, compression: str) -> None:
    if is_plain(stored, compression):
        assert expand([stored], compression) == stored
    elif stored and compression == "auto":
        assert expand([stored]) == TEXT[:100]
    assert is_plain(stored, compression) == (
        compression == "none" or (compression == "auto" and not stored.startswith((b"\x1f\x8b", b"BZh", b"\x28\xb5")))
    )


def test_what_is_not_read_is_not_plain() -> None:
    with pytest.raises(FileError, match="xz"):
        is_plain(lzma.compress(b"{}"), "auto")
