"""One secret in whatever form it is written down: as it is, escaped, quoted for an address, in base64. Pure."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterator
from contextlib import suppress

HIDDEN = "***"
_RUN = re.compile(r"[A-Za-z0-9]+")
_NAMED = {"\n": "n", "\r": "r", "\t": "t"}
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot"}
_URL_SAFE = str.maketrans("+/", "-_")
_BYTE, _SIXTH = 8, 6
# Backslashes double each time that an escaped text is escaped.
_MOST_ESCAPES = 16
_ESCAPE = rf"\\{{1,{_MOST_ESCAPES}}}+"
_PERHAPS = rf"\\{{0,{_MOST_ESCAPES}}}+"
# Of a key that is a document of its own, what opens something.
_DOCUMENT_PARTS = ("private_key", "private_key_id", "client_secret", "refresh_token")
_SIGNATURE = re.compile(r"(?:^|[?&])sig=([^&]+)")


def parts_of(secret: str) -> Iterator[str]:
    """What is secret by itself in a secret: the whole, its lines, and what it holds where it has a known form."""
    yield secret
    yield from _lines(secret)
    if secret.lstrip().startswith("{"):
        yield from _parts_of_document(secret)
    for signature in _SIGNATURE.findall(secret):
        from urllib.parse import unquote  # noqa: PLC0415 - few secrets have one

        yield unquote(signature)


def _parts_of_document(secret: str) -> Iterator[str]:
    import json  # noqa: PLC0415 - as above

    try:
        document = json.loads(secret)
    except (ValueError, RecursionError):
        return
    for name in _DOCUMENT_PARTS:
        value = document.get(name)
        if isinstance(value, str):
            yield value
            yield from _lines(value)


def _lines(text: str) -> Iterator[str]:
    # What frames a key says what kind of key it is, and nothing more.
    return (line for line in text.splitlines() if not line.startswith("-----"))


class Secret:
    """A secret that can be found in a text.

    Whether it may be there is told by plain looks for what no form of it changes; only then its pattern is made.
    """

    def __init__(self, text: str) -> None:
        """Take the secret; none is empty."""
        self.text = text
        # Letters and digits are written everywhere as they are.
        self._run = max(_RUN.findall(text), key=len, default="")
        self._in_base64 = tuple(dict.fromkeys(mark for data in _as_bytes(text) for mark in _in_base64(data)))
        self._pattern: re.Pattern[str] | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts of which every form of it holds one; an empty one is in all."""
        return (self._run, *self._in_base64)

    def hidden_in(self, text: str) -> str:
        """The text without it."""
        if self._run in text:
            if self._pattern is None:
                self._pattern = re.compile(_spelled(self.text))
            text = self._pattern.sub(HIDDEN, text)
        for mark in self._in_base64:
            if mark in text:
                # With what it was encoded together with.
                text = re.sub(rf"[A-Za-z0-9+/_-]*{re.escape(mark)}[A-Za-z0-9+/_-]*=*", HIDDEN, text)
        return text


def _as_bytes(text: str) -> Iterator[bytes]:
    yield text.encode("utf-8", "surrogatepass")
    # So some libraries send a user and a password.
    with suppress(UnicodeEncodeError):
        yield text.encode("latin-1")


def _in_base64(data: bytes) -> Iterator[str]:
    """The characters that stand for nothing but `data`, for each of the three places at which it may begin."""
    for before in range(3):
        text = b2a_base64(bytes(before) + data, newline=False).decode()
        first, end = -(-before * _BYTE // _SIXTH), (before + len(data)) * _BYTE // _SIXTH
        yield text[first:end]
        yield text[first:end].translate(_URL_SAFE)


def _spelled(text: str) -> str:
    """A pattern of all its forms, and of mixtures of them: every tool leaves other characters as they are.

    Nothing in it is tried in more than one way, so that a text takes no longer for being made to look like the secret.
    """
    pattern, is_escaped = "", False
    # A run of backslashes is one, and takes those with it that escape what follows.
    for part in re.findall(r"\\+|[^\\]", text, re.DOTALL):
        pattern += _backslashes(len(part)) if part[0] == "\\" else _character(part, is_escaped=is_escaped)
        is_escaped = part[0] == "\\"
    return pattern


def _backslashes(count: int) -> str:
    return rf"(?:\\{{{count},{count * _MOST_ESCAPES}}}+|(?i:%(?:25){{0,4}}5c|&#92;|&#x5c;){{{count}}})"


def _character(c: str, *, is_escaped: bool) -> str:
    """One that is no backslash; `is_escaped`: the backslashes before it may be matched already."""
    if c.isascii() and c.isalnum():
        return c
    code = ord(c)
    units = re.findall("....", c.encode("utf-16-be", "surrogatepass").hex())
    octets = [f"{octet:02x}" for octet in c.encode("utf-8", "surrogatepass")]
    first = _PERHAPS if is_escaped else _ESCAPE
    ways = [
        first + _ESCAPE.join(f"x{octet}" for octet in octets),
        first + _ESCAPE.join(f"u{unit}" for unit in units),
        f"{first}x{code:02x}",
        f"{first}U{code:08x}",
        *([first + _NAMED[c]] if c in _NAMED else []),
        "".join(f"%(?:25){{0,4}}{octet}" for octet in octets),
        f"&#0*+{code};",
        f"&#x0*+{code:x};",
        *([f"&{_ENTITIES[c]};"] if c in _ENTITIES else []),
        *([r"\+"] if c == " " else []),
    ]
    return f"(?:{_PERHAPS}{re.escape(c)}|(?i:{'|'.join(ways)}))"
