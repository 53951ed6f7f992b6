"""Who may ask the service: roles, tenants, and the tokens that give them.

A token is a random text that is shown once. What is kept of it is its SHA-256: of 256 random bits nobody finds the text
that belongs to a hash, so nothing slower is needed, and a token is looked up by it.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.domain.errors import InvalidFieldError

DEFAULT_TENANT = "default"
# Tells what was found in a log, a file or a chat, and finds it there.
TOKEN_PREFIX = "autoloader_"  # noqa: S105 - of every token
_RANDOM_BYTES = 32
_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LONGEST_NAME = 100


class Role(enum.StrEnum):
    """What somebody may do; each may do what the one before may. The values are part of the contract."""

    VIEWER = "viewer"  # reads
    OPERATOR = "operator"  # makes, changes and runs ingestions
    ADMIN = "admin"  # does what concerns a tenant as a whole

    def includes(self, needed: Role) -> bool:
        """Whether this role is enough for what `needed` may do."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class TokenState(enum.StrEnum):
    """Whether a token is good."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class NewToken:
    """A token to be kept, by what tells of it. `expires_at` None: it stays good until it is revoked."""

    id: str
    name: str
    tenant: str
    role: Role
    expires_at: datetime | None = None


@dataclass(frozen=True)
class AccessToken:
    """What is known of a token; not the token.

    Args:
        last_used_at: To the minute; None: never.
    """

    id: str
    name: str
    tenant: str
    role: Role
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> TokenState:
        """Whether it is good."""
        if self.revoked_at is not None:
            return TokenState.REVOKED
        return TokenState.EXPIRED if self.expires_at is not None and self.expires_at <= now else TokenState.ACTIVE


@dataclass(frozen=True)
class TokenLook:
    """What the database says of a token that was sent.

    Args:
        is_server_mode: Whether a token was ever made: then nothing is answered without one.
        token: The one that it is, good or not; None: there is none such.
    """

    is_server_mode: bool
    token: AccessToken | None


class AccessTokens(Protocol):
    """The tokens of all tenants. None is ever forgotten: who has made one stays in server mode."""

    def add_token(self, new: NewToken, digest: str) -> AccessToken:
        """Keep it by the digest of its text."""
        ...

    def list_tokens(self, tenant: str | None = None) -> list[AccessToken]:
        """Those of the tenant (None: of all), the newest first; revoked and expired ones too."""
        ...

    def revoke_token(self, token_id: str) -> AccessToken:
        """Let it be good no more, from now on. Again: no change.

        Raises:
            NotFoundError: There is none of that id.
        """
        ...

    def look_up_token(self, digest: str | None) -> TokenLook:
        """Whether there are tokens at all, and the one whose digest that is."""
        ...

    def note_token_used(self, token_id: str, at: datetime) -> None:
        """Keep when it was last used."""
        ...


def new_token() -> str:
    """A token's text, which nobody has seen before."""
    # Only where one is made: every start of the command line imports this module.
    import secrets  # noqa: PLC0415

    return TOKEN_PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def new_token_id() -> str:
    """What a token is called by where it must not be shown."""
    import secrets  # noqa: PLC0415  # as above

    return secrets.token_hex(6)


def is_token(text: str) -> bool:
    """Whether a text has a token's form."""
    return _TOKEN.fullmatch(text) is not None


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def checked_tenant(name: str) -> str:
    """The name of a tenant.

    Raises:
        InvalidFieldError: It is none.
    """
    if not _TENANT.fullmatch(name):
        raise InvalidFieldError(
            f"{name[:80]!r} is no name of a tenant.",
            remedy="Use up to 63 small letters, digits, - and _, a letter or digit first.",
        )
    return name


def checked_token_name(name: str) -> str:
    """What a token is said to be for.

    Raises:
        InvalidFieldError: It is too long, holds what cannot be shown, or is itself a token.
    """
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidFieldError(f"A token's name has up to {LONGEST_NAME} characters that can be shown.")
    if TOKEN_PREFIX in name:
        raise InvalidFieldError("A token's name must not hold a token.")
    return name
