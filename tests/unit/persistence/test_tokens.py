from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.domain.access import NewToken, Role, TokenLook, digest_of, new_token, new_token_id
from app.domain.errors import NotFoundError
from app.persistence.service import SqlServiceStore

LATER = datetime(2027, 1, 1, tzinfo=UTC)


def kept(store: SqlServiceStore, tenant: str = "default", role: Role = Role.VIEWER) -> tuple[str, str]:
    """Id and text of a new token."""
    token = new_token()
    made = store.add_token(NewToken(new_token_id(), "ci", tenant, role, LATER), digest_of(token))
    return made.id, token


def test_without_a_token_there_is_no_server_mode(store: SqlServiceStore) -> None:
    assert store.look_up_token(None) == TokenLook(is_server_mode=False, token=None)
    assert store.look_up_token(digest_of(new_token())) == TokenLook(is_server_mode=False, token=None)


def test_a_token_is_found_by_its_digest_as_it_was_made(store: SqlServiceStore) -> None:
    token_id, token = kept(store, "acme", Role.OPERATOR)
    kept(store)
    found = store.look_up_token(digest_of(token)).token
    assert found is not None
    assert (found.id, found.name, found.tenant, found.role) == (token_id, "ci", "acme", Role.OPERATOR)
    assert (found.expires_at, found.last_used_at, found.revoked_at) == (LATER, None, None)
    assert abs(found.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.look_up_token(digest_of(new_token())) == TokenLook(is_server_mode=True, token=None)


def test_server_mode_stays_when_the_last_token_is_revoked(store: SqlServiceStore) -> None:
    token_id, token = kept(store, role=Role.ADMIN)
    revoked = store.revoke_token(token_id)
    assert revoked.revoked_at is not None
    assert store.revoke_token(token_id) == revoked
    assert store.look_up_token(None).is_server_mode
    assert store.look_up_token(digest_of(token)).token == revoked
    with pytest.raises(NotFoundError, match="nobody"):
        store.revoke_token("nobody")


def test_lists_are_a_tenants_or_whole(store: SqlServiceStore) -> None:
    first, second = kept(store, "acme")[0], kept(store, "beta")[0]
    store.note_token_used(second, LATER)
    assert [one.id for one in store.list_tokens()] == [second, first]
    assert [one.id for one in store.list_tokens("acme")] == [first]
    assert store.list_tokens()[0].last_used_at == LATER


def test_the_database_has_no_tokens_text(store: SqlServiceStore) -> None:
    _, token = kept(store)
    with store._engine.connect() as connection:
        rows = connection.execute(text("select * from tokens")).all()
    assert token not in str(rows)
    assert digest_of(token) in str(rows)
