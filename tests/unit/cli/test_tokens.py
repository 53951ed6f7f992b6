"""`autoloader tokens`, in processes of their own on one database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.domain.access import digest_of, is_token
from app.domain.redaction import Redactor
from app.persistence.keys import Keyring
from app.persistence.service import open_service_store
from tests.support.command import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {"AUTOLOADER_HOME": str(tmp_path)})


def test_a_token_is_shown_once_listed_without_its_text_and_revoked(home: Home) -> None:
    missing = home.run("tokens", "list", "--output", "json")
    assert (missing.status, missing.json["code"]) == (1, "ledger_unreadable")
    assert not (home.folder / "autoloader.db").exists()

    made = home.run("tokens", "create", "--role", "operator", "--tenant", "acme", "--name", "ci", "--expires-in", "90d")
    token = made.stdout.strip()
    assert made.status == 0
    assert is_token(token)
    assert "Made a new database" in made.stderr
    assert "never shown again" in made.stderr
    assert "This is the first token." in made.stderr
    assert "AUTOLOADER_LOCAL_ROOTS" in made.stderr
    assert "AUTOLOADER_ALLOWED_HOSTS" in made.stderr
    admin = home.run("tokens", "create", "--role", "admin", "--output", "json")
    assert is_token(admin.json["token"])
    assert "Made" not in admin.stderr
    assert "first token" not in admin.stderr

    listed = home.run("tokens", "list", "--output", "json", "--verbose")
    newest, first = listed.json
    assert token not in listed.stdout + listed.stderr
    assert (first["role"], first["tenant"], first["name"], first["state"]) == ("operator", "acme", "ci", "active")
    expires = datetime.fromisoformat(first["expires_at"])
    assert abs(expires - datetime.now(UTC) - timedelta(days=90)) < timedelta(hours=1)
    assert newest == {name: value for name, value in admin.json.items() if name != "token"}
    assert [one["id"] for one in home.run("tokens", "list", "--tenant", "acme", "--output", "json").json] == [
        first["id"]
    ]
    assert first["id"] in home.run("tokens", "list").stdout

    revoked = home.run("tokens", "revoke", newest["id"])
    assert revoked.status == 0
    assert "No admin's token is good any more" in revoked.stderr
    assert home.run("tokens", "list", "--output", "json").json[0]["state"] == "revoked"

    for path in home.folder.glob("autoloader.db*"):
        assert token.encode() not in path.read_bytes()
    store = open_service_store(f"sqlite:///{home.folder}/autoloader.db", Keyring("x", None, None), Redactor().learn)
    look = store.look_up_token(digest_of(token))
    store.dispose()
    assert look.token is not None
    assert look.token.id == first["id"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "--role"),
        (("create", "--role", "boss"), "boss"),
        (("create", "--role", "viewer", "--tenant", "A b"), "no name of a tenant"),
        (("create", "--role", "viewer", "--expires-in", "soon"), "no time"),
        (("create", "--role", "viewer", "--name", "x" * 101), "name"),
    ],
)
def test_what_cannot_be_understood_makes_nothing(home: Home, arguments: tuple[str, ...], said: str) -> None:
    done = home.run("tokens", *arguments, "--output", "json")
    assert done.status == 2
    assert said in done.json["detail"]
    assert not (home.folder / "autoloader.db").exists()


def test_a_token_that_nobody_has_cannot_be_revoked(home: Home) -> None:
    home.run("tokens", "create", "--role", "viewer")
    done = home.run("tokens", "revoke", "nobody", "--output", "json")
    assert (done.status, done.json["code"]) == (1, "not_found")
