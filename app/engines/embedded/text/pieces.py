"""Bytes of a text file as UTF-8, in pieces of a handy size."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

from app.domain.errors import Category, FileError

_UTF8 = "utf-8"
# The longer mark first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LONGEST_MARK = 4
FIRST_LOOK_BYTES = 64 * 1024
LOOK_BYTES = 1024 * 1024


def check_encoding(name: str | None) -> str | None:
    """The encoding by Python's name for it, None for UTF-8 and what byte order marks say.

    Raises:
        FileError: `format_options_invalid`: there is no such encoding of text.
    """
    if name is None:
        return None
    try:
        found = codecs.lookup(name).name
        "".encode(found)
        b"".decode(found)
    except (LookupError, ValueError) as error:
        message = f'There is no text encoding "{name}"; give a name such as latin-1, cp1252 or utf-16.'
        raise FileError(Category.FORMAT_OPTIONS_INVALID, message) from error
    return None if found in {_UTF8, "utf-8-sig"} else found


def as_utf8(chunks: Iterable[bytes], encoding: str | None) -> Iterator[bytes]:
    """Yield the text of a file as UTF-8 without a byte order mark; what is UTF-8 already is not checked here.

    Raises:
        FileError: `data_malformed`: bytes do not decode from another encoding; with their line.
    """
    chunks = _first_whole(chunks)
    first = next(chunks, b"")
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if first.startswith(mark)), None)
    if encoding is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from chunks
    else:
        yield from _transcode(_chain(first, chunks), encoding)


def _first_whole(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, the first piece long enough to show a byte order mark."""
    rest = iter(chunks)
    head = b""
    for chunk in rest:
        head += chunk
        if len(head) >= _LONGEST_MARK:
            break
    yield head
    yield from rest


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _transcode(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    line, begun = 1, False
    for chunk, last in _marked_last(chunks):
        try:
            # Some codecs hand on surrogates, which no UTF-8 can hold.
            text = decoder.decode(chunk, last)
            piece = (text if begun else text.removeprefix("\ufeff")).encode(_UTF8)
        except UnicodeError as error:
            message = f"After line {line} bytes follow that are not {encoding}."
            raise FileError(Category.DATA_MALFORMED, message, line=line) from error
        begun = begun or bool(text)
        line += piece.count(b"\n")
        yield piece


def _marked_last(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    for chunk in chunks:
        yield chunk, False
    yield b"", True


def reblock(chunks: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of about `size_bytes`, each but the last ending in a newline where it has one."""
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        for start in range(0, len(chunk), size_bytes):
            part = chunk[start : start + size_bytes]
            parts.append(part)
            held += len(part)
            if held >= size_bytes:
                whole = b"".join(parts)
                end = whole.rfind(b"\n") + 1 or len(whole)
                yield whole[:end]
                parts = [whole[end:]]
                held = len(whole) - end
    # A last line without an end stands alone, so that readers which trust in ends of lines can read the rest.
    whole = b"".join(parts)
    end = whole.rfind(b"\n") + 1
    yield from (part for part in (whole[:end], whole[end:]) if part)


def growing(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of about a megabyte, the first one smaller: it shows the types, the others are held against them."""
    pieces = reblock(chunks, LOOK_BYTES)
    head = next(pieces, b"")
    cut = head.rfind(b"\n", 0, FIRST_LOOK_BYTES) + 1 or head.find(b"\n") + 1
    if 0 < cut < len(head):
        yield head[:cut]
        head = head[cut:]
    yield head
    yield from pieces


def as_whole(data: bytes, encoding: str | None) -> bytes | FileError:
    """The whole text of a file as UTF-8, or why there is none."""
    try:
        return b"".join(as_utf8([data], encoding))
    except FileError as error:
        return error


def at_record_ends(pieces: Iterable[bytes], quote: bytes) -> Iterator[bytes]:
    """The same bytes, each piece cut at a newline that probably stands outside quotes.

    A piece of whole records has an even number of quotes; where that cannot be had, the piece is left as it is.
    """
    held = b""
    for piece in pieces:
        whole = held + piece
        end = _even_end(whole, quote) if quote else len(whole)
        held = whole[end:]
        yield whole[:end]
    if held:
        yield held


_TRIES = 1_000


def _even_end(text: bytes, quote: bytes) -> int:
    odd = text.count(quote) % 2
    end = len(text)
    for _ in range(_TRIES):
        if not odd:
            return end
        start = text.rfind(b"\n", 0, end - 1) + 1
        if not start:
            break
        odd = (odd + text.count(quote, start, end)) % 2
        end = start
    return len(text)
