"""Turns stored bytes into the bytes that a format's decoder reads. Compression is known by content, not by name.

A cut or damaged stream is always an error, never a short success; a bomb stops before it fills the memory.
"""

from __future__ import annotations

import bz2
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import zstandard
from isal import isal_zlib

from app.domain.errors import Category, FileError

MAX_RATIO = 200
# Below this many decompressed bytes the ratio is not looked at: a small file of one repeated line is no attack.
RATIO_FREE_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
# A block of zstd may hold 128 KiB in four bytes and its decoder knows no bound on output, so it is fed little at once.
ZSTD_FEED_BYTES = 8 * 1024
HEAD_BYTES = 16

# The stubs of isal call its error class a value.
_DAMAGED = (cast("type[Exception]", isal_zlib.error), zstandard.ZstdError, OSError, ValueError, EOFError)
_ZSTD_SKIPPABLE = tuple(bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60))
_BZ2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
_UNREAD = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy"),
)


def detect(head: bytes) -> str:
    """The compression that the first `HEAD_BYTES` of a file show: gzip, zstd, bz2 or none.

    Raises:
        FileError: It is compressed in a way that is not read (`data_malformed`).
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith((b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE)):
        return "zstd"
    if head.startswith(b"BZh") and head[3:4] in b"123456789" and head[4:10] in _BZ2_BLOCKS:
        return "bz2"
    for magic, name in _UNREAD:
        if head.startswith(magic):
            raise FileError(
                Category.DATA_MALFORMED, f"The file is compressed with {name}, which is not read.", offset=0
            )
    return "none"


def is_plain(stored: bytes, compression: str) -> bool:
    """Whether these are all bytes of a file that `decompress` would give just as they are.

    Raises:
        FileError: As `detect`.
    """
    return compression == "none" or (compression == "auto" and detect(stored[:HEAD_BYTES]) == "none")


def decompress(chunks: Iterable[bytes], compression: str = "auto") -> Iterator[bytes]:
    """Yield the decompressed bytes of one file in pieces of about `PIECE_BYTES` at most; none for an empty file.

    Args:
        chunks: The stored bytes, in order.
        compression: `auto`, `none`, or the codec that the file must have: `gzip`, `zstd`, `bz2`.

    Raises:
        FileError: `data_malformed` for a damaged or cut stream, or one followed by something else;
            `format_options_invalid` when the file does not have the named compression; `limit_exceeded` for a bomb.
    """
    stored = iter(chunks)
    if compression == "none":
        yield from (chunk for chunk in stored if chunk)
        return
    head = b""
    for chunk in stored:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    found = detect(head) if head else "none"
    if head and compression not in {"auto", found}:
        raise FileError(
            Category.FORMAT_OPTIONS_INVALID,
            f"The option compression says {compression}, but the file "
            + ("is not compressed." if found == "none" else f"is compressed with {found}."),
        )
    stored = itertools.chain((head,), stored) if head else iter(())
    if found == "none":
        yield from (chunk for chunk in stored if chunk)
    else:
        yield from _checked(found, stored)


def _checked(codec: str, stored: Iterator[bytes]) -> Iterator[bytes]:
    meter = _Meter()
    try:
        for piece in _members(codec, meter.counted(stored)):
            meter.produced += len(piece)
            meter.check()
            yield piece
    except _DAMAGED as error:
        raise FileError(
            Category.DATA_MALFORMED,
            f"The {codec} stream is damaged after {meter.produced:,} decompressed bytes: {error}.",
            offset=meter.produced,
        ) from error
    except _CutError as error:
        raise FileError(
            Category.DATA_MALFORMED,
            f"The {codec} stream is cut: it ends in the middle, after {meter.produced:,} decompressed bytes.",
            offset=meter.produced,
        ) from error
    except _TrailingError as error:
        raise FileError(
            Category.DATA_MALFORMED,
            f"After the end of the {codec} stream, at {meter.produced:,} decompressed bytes, something else follows.",
            offset=meter.produced,
        ) from error


class _CutError(Exception):
    """The stream ends before its end mark."""


class _TrailingError(Exception):
    """Bytes follow a whole stream and begin no other one."""


@dataclass
class _Meter:
    consumed: int = 0
    produced: int = 0

    def counted(self, stored: Iterator[bytes]) -> Iterator[bytes]:
        # Fed in pieces so that what was consumed is known closely: the ratio is judged by it.
        for chunk in stored:
            for start in range(0, len(chunk), PIECE_BYTES // 16):
                piece = chunk[start : start + PIECE_BYTES // 16]
                self.consumed += len(piece)
                yield piece

    def check(self) -> None:
        if self.produced > RATIO_FREE_BYTES and self.produced > MAX_RATIO * self.consumed:
            raise FileError(
                Category.LIMIT_EXCEEDED,
                f"The file decompresses to more than {MAX_RATIO} times its stored size "
                f"({self.produced:,} bytes so far), as archives made to fill a memory do.",
                offset=self.produced,
            )


class _Member(Protocol):
    """One member of an archive while it is decoded."""

    @property
    def eof(self) -> bool:
        """Whether its end mark was seen and its checksum found right."""
        ...

    @property
    def rest(self) -> bytes:
        """What follows the member's end in the data that `expand` was given last."""
        ...

    def expand(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data`, the next stored bytes, decompresses to."""
        ...


class _GzipMember:
    magic: ClassVar[tuple[bytes, ...]] = (b"\x1f\x8b",)

    def __init__(self) -> None:
        self._stream = isal_zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def rest(self) -> bytes:
        return bytes(self._stream.unused_data)

    def expand(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._stream.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            data = self._stream.unconsumed_tail
            if self.eof or (not data and len(piece) < PIECE_BYTES):
                return


class _Bz2Member:
    magic: ClassVar[tuple[bytes, ...]] = (b"BZh",)

    def __init__(self) -> None:
        self._stream = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    def expand(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._stream.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            if self.eof or self._stream.needs_input:
                return
            data = b""


class _ZstdMember:
    magic: ClassVar[tuple[bytes, ...]] = (b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE)

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self.rest = b""

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    def expand(self, data: bytes) -> Iterator[bytes]:
        pending: list[bytes] = []
        size = 0
        for start in range(0, len(data), ZSTD_FEED_BYTES):
            piece = self._stream.decompress(data[start : start + ZSTD_FEED_BYTES])
            pending.append(piece)
            size += len(piece)
            if self.eof:
                # The decoder knows what it left of the last feed only; what was never fed comes after that.
                self.rest = self._stream.unused_data + data[start + ZSTD_FEED_BYTES :]
                break
            if size >= PIECE_BYTES:
                yield b"".join(pending)
                pending, size = [], 0
        if size:
            yield b"".join(pending)


_CODECS: dict[str, type[_GzipMember | _Bz2Member | _ZstdMember]] = {
    "gzip": _GzipMember,
    "zstd": _ZstdMember,
    "bz2": _Bz2Member,
}


def _members(codec: str, stored: Iterator[bytes]) -> Iterator[bytes]:
    """Decode one member after the other; zero bytes after the last one are padding, as tape tools write."""
    kind = _CODECS[codec]
    member: _Member | None = None
    rest = b""
    for chunk in stored:
        data, rest = rest + chunk, b""
        while data:
            if member is None:
                data = data.lstrip(b"\x00")
                if not data.startswith(kind.magic):
                    if data and not any(magic.startswith(data) for magic in kind.magic):
                        raise _TrailingError
                    rest = data
                    break
                member = kind()
            yield from member.expand(data)
            if not member.eof:
                break
            data, member = member.rest, None
    if member is not None or rest:
        raise _CutError
