"""Addresses with a user and a password in them: what of them may be shown, and what is secret. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit, urlunsplit

_PASSWORD = re.compile(r"[^/]*://[^:/@]*:(.+)@", re.DOTALL)


def passwords_of(address: str) -> Iterator[str]:
    """The password in an address, as it stands there and as it is meant; whether or not it is escaped as it must be."""
    found = _PASSWORD.match(address)
    if found is not None:
        yield found[1]
        yield unquote(found[1])


def without_password(address: str) -> str:
    """The address as it may be shown."""
    scheme, mark, rest = address.partition("://")
    # The last one: a password that is not escaped may hold others.
    _, at, place = rest.rpartition("@")
    return f"{scheme}{mark}***@{place}" if at else address


def parted(address: str) -> tuple[str, str | None]:
    """The address without a user, and "user:password" as they are meant; None where it has none, or is no address."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address, None
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return address, None
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=place)), f"{unquote(name)}:{unquote(password)}"
