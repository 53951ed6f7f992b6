"""Tokens in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

from app.domain.access import AccessToken, NewToken, Role, TokenLook, digest_of, new_token, new_token_id
from app.domain.errors import AutoloaderError, NotFoundError


class MemoryTokens:
    """Keeps the promises of `AccessTokens`; while `failure` is set, every look raises it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.kept: dict[str, AccessToken] = {}
        self.failure: AutoloaderError | None = None

    def made(self, role: Role = Role.ADMIN, tenant: str = "default", expires_at: datetime | None = None) -> str:
        """The text of a new token."""
        token = new_token()
        self.add_token(NewToken(new_token_id(), role.value, tenant, role, expires_at), digest_of(token))
        return token

    def add_token(self, new: NewToken, digest: str) -> AccessToken:
        made = AccessToken(new.id, new.name, new.tenant, new.role, datetime.now(UTC), new.expires_at)
        with self._lock:
            self.kept[digest] = made
        return made

    def list_tokens(self, tenant: str | None = None) -> list[AccessToken]:
        with self._lock:
            found = [one for one in self.kept.values() if tenant in {None, one.tenant}]
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    def revoke_token(self, token_id: str) -> AccessToken:
        return self._change(token_id, revoked_at=datetime.now(UTC))

    def look_up_token(self, digest: str | None) -> TokenLook:
        if self.failure is not None:
            raise self.failure
        return TokenLook(bool(self.kept), None if digest is None else self.kept.get(digest))

    def note_token_used(self, token_id: str, at: datetime) -> None:
        self._change(token_id, last_used_at=at)

    def _change(self, token_id: str, **changes: datetime) -> AccessToken:
        # When a token was used is noted by a thread that nobody waits for.
        with self._lock:
            for digest, one in self.kept.items():
                if one.id == token_id:
                    self.kept[digest] = replace(one, **changes)  # type: ignore[arg-type]
                    return self.kept[digest]
        raise NotFoundError
