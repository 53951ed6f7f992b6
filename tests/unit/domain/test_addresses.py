from __future__ import annotations

import pytest

from app.domain.addresses import parted, passwords_of, without_password


@pytest.mark.parametrize(
    ("address", "bare", "user"),
    [
        ("http://localhost:4200/api", "http://localhost:4200/api", None),
        ("http://me:p%40ss%2Fw@host:4200/api?a=b", "http://host:4200/api?a=b", "me:p@ss/w"),
        ("http://me:a:b@[::1]:4200", "http://[::1]:4200", "me:a:b"),
        ("http://key@host/api", "http://host/api", "key:"),
        # They are no addresses, and whoever connects is to say so.
        ("http://me:a/b@host", "http://me:a/b@host", None),
        ("http://[me:a@host", "http://[me:a@host", None),
        ("", "", None),
    ],
)
def test_a_user_is_parted_from_an_address(address: str, bare: str, user: str | None) -> None:
    assert parted(address) == (bare, user)


@pytest.mark.parametrize("address", ["http://host", "http://me@host", "/a:b@c", "", "sqlite:///a.db", "s3://b/x:y@z"])
def test_an_address_without_a_password_has_none(address: str) -> None:
    assert list(passwords_of(address)) == []


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://localhost:4200/api", "http://localhost:4200/api"),
        ("https://u:p%40ss@prefect:4200/api", "https://***@prefect:4200/api"),
        ("https://u:p/@ss@prefect:4200/api", "https://***@prefect:4200/api"),
        ("http://[u:pass@host", "http://***@host"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert without_password(address) == shown
