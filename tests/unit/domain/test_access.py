from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.access import (
    AccessToken,
    Role,
    TokenState,
    checked_tenant,
    checked_token_name,
    digest_of,
    is_token,
    new_token,
)
from app.domain.errors import InvalidFieldError

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def test_a_role_includes_itself_and_those_below() -> None:
    included = {(one, other) for one in Role for other in Role if one.includes(other)}
    assert included == {
        (Role.VIEWER, Role.VIEWER),
        (Role.OPERATOR, Role.VIEWER),
        (Role.OPERATOR, Role.OPERATOR),
        (Role.ADMIN, Role.VIEWER),
        (Role.ADMIN, Role.OPERATOR),
        (Role.ADMIN, Role.ADMIN),
    }


def test_no_two_tokens_are_the_same_and_all_have_the_form() -> None:
    made = {new_token() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(is_token(one) for one in made)
    assert len({digest_of(one) for one in made}) == 1_000


@pytest.mark.parametrize("text", ["", "autoloader_", "x" * 54, f"autoloader_{'a' * 42}", f"autoloader_{'a' * 43}\n"])
def test_other_texts_have_not(text: str) -> None:
    assert not is_token(text)


def test_every_character_of_a_token_counts() -> None:
    token = new_token()
    others = (f"{token[:at]}{'a' if token[at] != 'a' else 'b'}{token[at + 1 :]}" for at in range(len(token)))
    assert len({digest_of(token), *map(digest_of, others)}) == len(token) + 1


def test_a_token_is_good_until_its_time_is_over_or_it_is_revoked() -> None:
    token = AccessToken("i", "n", "t", Role.VIEWER, NOW, expires_at=NOW)
    assert token.state(NOW - timedelta(seconds=1)) is TokenState.ACTIVE
    assert token.state(NOW) is TokenState.EXPIRED
    revoked = AccessToken("i", "n", "t", Role.VIEWER, NOW, revoked_at=NOW)
    assert revoked.state(NOW) is TokenState.REVOKED
    assert AccessToken("i", "n", "t", Role.VIEWER, NOW).state(NOW) is TokenState.ACTIVE


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-a", "a" * 64, "ä", "a/b", "a\n"])
def test_what_is_no_name_of_a_tenant(name: str) -> None:
    with pytest.raises(InvalidFieldError):
        checked_tenant(name)


def test_what_is_one() -> None:
    assert checked_tenant("acme-2_eu") == "acme-2_eu"


@pytest.mark.parametrize("name", ["a" * 101, "a\nb", "a\x1b[0m", pytest.param(new_token(), id="a token")])
def test_what_is_no_name_of_a_token(name: str) -> None:
    with pytest.raises(InvalidFieldError):
        checked_token_name(name)
