from __future__ import annotations

import base64
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from app.domain.errors import NotSupportedError, SecretKeyError
from app.domain.secret_forms import HIDDEN
from app.persistence.keys import FILE_NAME, Keyring, read_key
from app.persistence.schema import secrets
from app.persistence.service import SqlServiceStore, keyring, open_service_store
from tests.unit.persistence.service_desk import SECRET, ServiceDesk, new_ingestion

CREDENTIALS = {"aws_access_key_id": "AKIAEXAMPLEEXAMPLE", "aws_secret_access_key": SECRET, "aws_region": "eu-west-1"}


class Killed(BaseException):
    """The process is gone."""


def test_credentials_come_back_and_stand_nowhere_in_the_database(store: SqlServiceStore, service: ServiceDesk) -> None:
    made = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    assert made.credential_names == tuple(sorted(CREDENTIALS))
    assert store.credentials(made.id) == CREDENTIALS
    with store._read() as connection:
        for table in connection.execute(text(_TABLES[connection.dialect.name])).scalars().all():
            for row in connection.execute(text(f'select * from "{table}"')).all():
                assert SECRET not in str([bytes(v) if isinstance(v, memoryview) else v for v in row])
    # Whoever reads them can hide them.
    assert service.redactor.text(f"refused: {SECRET} in eu-west-1") == f"refused: {HIDDEN} in eu-west-1"


_TABLES = {
    "sqlite": "select name from sqlite_master where type = 'table'",
    "postgresql": "select tablename from pg_tables where schemaname = 'public'",
}


def test_no_row_has_the_same_key_and_none_means_none(store: SqlServiceStore) -> None:
    for _ in range(2):
        store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    empty = store.add_ingestion(new_ingestion())
    assert (empty.credential_names, store.credentials(empty.id)) == ((), {})
    with store._read() as connection:
        first, second = connection.execute(select(secrets)).all()
    assert first.ciphertext != second.ciphertext
    assert first.wrapped_key != second.wrapped_key


@pytest.mark.parametrize("columns", [("ciphertext", "nonce"), ("wrapped_key",), ("ciphertext", "nonce", "wrapped_key")])
def test_what_is_copied_to_another_row_is_refused(store: SqlServiceStore, columns: tuple[str, ...]) -> None:
    first = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    second = store.add_ingestion(new_ingestion(credentials={"aws_access_key_id": "mine"}))
    with store._write() as connection:
        row = connection.execute(select(secrets).where(secrets.c.ingestion_id == first.id)).one()
        values = {name: getattr(row, name) for name in columns}
        connection.execute(update(secrets).where(secrets.c.ingestion_id == second.id).values(values))
    with pytest.raises(SecretKeyError, match="not as they were written"):
        store.credentials(second.id)
    assert store.credentials(first.id) == CREDENTIALS


def test_a_changed_byte_is_refused(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    with store._write() as connection:
        row = connection.execute(select(secrets)).one()
        changed = bytes([row.ciphertext[0] ^ 1]) + row.ciphertext[1:]
        connection.execute(update(secrets).values(ciphertext=changed))
    with pytest.raises(SecretKeyError):
        store.credentials(made.id)


def test_credentials_change_and_go(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    made = store.change_ingestion(replace(made, name="kept"), None, made.version)
    assert store.credentials(made.id) == CREDENTIALS
    made = store.change_ingestion(made, {"aws_access_key_id": "new"}, made.version)
    assert store.credentials(made.id) == {"aws_access_key_id": "new"}
    made = store.change_ingestion(made, {}, made.version)
    assert (made.credential_names, store.credentials(made.id)) == ((), {})


def test_without_the_key_nothing_is_read(store: SqlServiceStore, service: ServiceDesk) -> None:
    made = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    service.secret_key = "another passphrase"
    other = service.open()
    with pytest.raises(SecretKeyError, match="not at hand"):
        other.credentials(made.id)
    assert "another passphrase" not in repr(read_key("another passphrase"))
    other.dispose()


# --- a new key ---------------------------------------------------------------------------------------------------


def test_rows_are_put_under_a_new_setting(store: SqlServiceStore, service: ServiceDesk) -> None:
    made = [store.add_ingestion(new_ingestion(credentials=CREDENTIALS)) for _ in range(3)]
    service.secret_key, service.previous = base64.b64encode(os.urandom(32)).decode(), service.secret_key
    both = service.open()
    # Readable before, while and after.
    assert both.credentials(made[0].id) == CREDENTIALS
    assert (both.rewrap_secrets(), both.rewrap_secrets()) == (3, 0)
    both.dispose()
    service.previous = None
    alone = service.open()
    assert [alone.credentials(one.id) for one in made] == [CREDENTIALS] * 3
    alone.dispose()


@pytest.mark.parametrize("after", range(4))
def test_a_rotation_that_was_killed_goes_on(sqlite_url: str, tmp_path: Path, after: int) -> None:
    """The key is in a file; the process dies after so many rows."""
    desk = ServiceDesk(sqlite_url, tmp_path, secret_key=None)
    store = desk.open()
    made = [store.add_ingestion(new_ingestion(credentials=CREDENTIALS)) for _ in range(3)]
    old = (tmp_path / FILE_NAME).read_text()
    _die_after(store, after)
    store.dispose()
    store = desk.open()
    assert all(store.credentials(one.id) == CREDENTIALS for one in made)
    assert store.rewrap_secrets() == 3 - after
    assert all(store.credentials(one.id) == CREDENTIALS for one in made)
    assert (tmp_path / FILE_NAME).read_text() != old
    # The old key is gone, and no row needs it.
    assert [path.name for path in tmp_path.glob("secret.key*")] == [FILE_NAME]
    store.dispose()


def _die_after(store: SqlServiceStore, rows: int) -> None:
    ring, calls = store._keyring, 0

    class Dying(Keyring):
        def current(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            nonlocal calls
            calls += 1
            if calls > 2 * rows:
                raise Killed
            return ring.current()

    dying = Dying(None, None, None)
    dying._file, dying._read = ring._file, ring._read
    dying.begin_rotation = ring.begin_rotation  # type: ignore[method-assign]
    store._keyring = dying
    with pytest.raises(Killed):
        store.rewrap_secrets()
    store._keyring = ring


@pytest.mark.parametrize("state", ["new alone", "new cut short", "both linked", "old beside"])
def test_a_rotation_that_was_killed_between_the_files_goes_on(sqlite_url: str, tmp_path: Path, state: str) -> None:
    desk = ServiceDesk(sqlite_url, tmp_path, secret_key=None)
    store = desk.open()
    made = store.add_ingestion(new_ingestion(credentials=CREDENTIALS))
    file, new, previous = (tmp_path / f"{FILE_NAME}{suffix}" for suffix in ("", ".new", ".previous"))
    other = base64.b64encode(os.urandom(32)).decode()
    if state != "old beside":
        new.write_text(other[: 3 if state == "new cut short" else None])
        new.chmod(0o600)
    if state in ("both linked", "old beside"):
        os.link(file, previous)
    if state == "old beside":
        new.write_text(other)
        new.chmod(0o600)
        new.replace(file)
    assert store.credentials(made.id) == CREDENTIALS
    assert store.rewrap_secrets() == 1
    assert store.credentials(made.id) == CREDENTIALS
    assert [path.name for path in tmp_path.glob("secret.key*")] == [FILE_NAME]
    store.dispose()


# --- where keys come from ----------------------------------------------------------------------------------------


def test_a_key_in_a_file_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    first, second = Keyring(None, None, tmp_path), Keyring(None, None, tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
    assert first.current() == second.current()
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(("content", "mode"), [("not base64", 0o600), ("", 0o600), ("A" * 43 + "=", 0o644)])
def test_a_key_in_a_file_that_is_damaged_or_open_to_others_is_refused(tmp_path: Path, content: str, mode: int) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(SecretKeyError):
        Keyring(None, None, tmp_path).current()
    assert path.read_text() == content


def test_a_folder_that_takes_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(SecretKeyError, match="cannot be kept"):
        Keyring(None, None, tmp_path / "missing").current()


def test_a_setting_is_32_bytes_or_a_passphrase() -> None:
    raw = bytes(range(32))
    assert read_key(base64.b64encode(raw).decode()).secret == raw
    assert read_key(base64.urlsafe_b64encode(raw).decode() + "\n").secret == raw
    assert read_key("correct horse") == read_key(" correct horse\n")
    assert read_key("correct horse").secret != read_key("correct horsf").secret
    assert len(read_key("correct horse").secret) == 32
    with pytest.raises(SecretKeyError, match="empty"):
        read_key("  ")


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://", "sqlite:///file:x?mode=memory&uri=true"])
def test_the_service_needs_a_database_that_its_processes_can_share(tmp_path: Path, url: str) -> None:
    with pytest.raises(NotSupportedError, match="names no file"):
        open_service_store(url, keyring(url, None, None, tmp_path), lambda _values: None)


def test_on_postgresql_a_key_must_be_given(tmp_path: Path) -> None:
    ring = keyring("postgresql://u:p@h/d", None, None, tmp_path)
    with pytest.raises(SecretKeyError, match="PostgreSQL") as refused:
        ring.require()
    assert "openssl rand -base64 32" in refused.value.advice
    keyring("postgresql://u:p@h/d", "a passphrase", None, tmp_path).require()
    keyring("sqlite:///x.db", None, None, tmp_path).require()
    assert list(tmp_path.iterdir()) == []
