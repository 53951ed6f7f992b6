"""Keep what is known of tokens: of their texts, the digests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, exists, literal, select, update

from app.domain.access import AccessToken, NewToken, Role, TokenLook
from app.domain.errors import NotFoundError
from app.persistence.schema import tokens
from app.persistence.store import SqlStore


class SqlAccessTokens(SqlStore):
    """Keeps the promises of `domain.access.AccessTokens`."""

    def add_token(self, new: NewToken, digest: str) -> AccessToken:
        """Keep it by its digest."""
        values = {
            "id": new.id,
            "digest": digest,
            "name": new.name,
            "tenant": new.tenant,
            "role": new.role.value,
            "created_at": datetime.now(UTC),
            "expires_at": new.expires_at,
        }
        with self._write() as connection:
            connection.execute(tokens.insert().values(values))
            return _token(connection.execute(select(tokens).where(tokens.c.id == new.id)).one())

    def list_tokens(self, tenant: str | None = None) -> list[AccessToken]:
        """Those of the tenant, or all, the newest first."""
        statement = select(tokens).order_by(tokens.c.created_at.desc(), tokens.c.id)
        if tenant is not None:
            statement = statement.where(tokens.c.tenant == tenant)
        with self._read() as connection:
            return [_token(row) for row in connection.execute(statement)]

    def revoke_token(self, token_id: str) -> AccessToken:
        """Let it be good no more."""
        this = tokens.c.id == token_id
        with self._write() as connection:
            unrevoked = tokens.c.revoked_at.is_(None)
            connection.execute(update(tokens).where(this, unrevoked).values(revoked_at=datetime.now(UTC)))
            row = connection.execute(select(tokens).where(this)).first()
            if row is None:
                raise NotFoundError(f"There is no token {token_id}.", remedy="`autoloader tokens list` shows the ids.")
            return _token(row)

    def look_up_token(self, digest: str | None) -> TokenLook:
        """Whether there are tokens at all, and the one of that digest, as one moment saw them."""
        with self._read() as connection:
            row = None
            if digest is not None:
                row = connection.execute(select(tokens).where(tokens.c.digest == digest)).first()
            if row is not None:
                return TokenLook(is_server_mode=True, token=_token(row))
            found = connection.execute(select(literal(1)).where(exists(select(tokens.c.id)))).first()
            return TokenLook(is_server_mode=found is not None, token=None)

    def note_token_used(self, token_id: str, at: datetime) -> None:
        """Keep when it was last used."""
        with self._write() as connection:
            connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=at))


def _token(row: Row[Any]) -> AccessToken:
    return AccessToken(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        role=Role(row.role),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
