from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.config import Settings, read_settings
from app.domain.errors import InvalidFieldError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings of the developer's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_below_the_folder_the_process_is_in(elsewhere: Path) -> None:
    settings = read_settings()
    assert settings.home == elsewhere
    assert settings.warehouse == elsewhere / "warehouse"
    assert settings.ledger_url == f"sqlite:///{elsewhere}/autoloader.db"
    assert (settings.autoloader_lease_s, settings.autoloader_file_tries) == (60.0, 3)
    assert (settings.autoloader_batch_bytes, settings.autoloader_batch_files) == (1 << 30, 10_000)


def test_relative_paths_start_from_the_home(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOLOADER_HOME", "home")
    monkeypatch.setenv("AUTOLOADER_WAREHOUSE", "w")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///deep/l.db")
    settings = read_settings()
    assert settings.warehouse == elsewhere / "home" / "w"
    assert settings.ledger_url == f"sqlite:///{elsewhere}/home/deep/l.db"


@pytest.mark.parametrize("url", ["sqlite:////abs/l.db", "sqlite://", "sqlite:///:memory:", "postgresql://u:p@h/db"])
def test_other_addresses_stay_as_they_are(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert read_settings().ledger_url == url


def test_a_file_of_settings_is_read_and_the_environment_wins(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / ".env").write_text("AUTOLOADER_LEASE_S=7\nAUTOLOADER_FILE_TRIES=5\nUNRELATED=1\n")
    monkeypatch.setenv("AUTOLOADER_FILE_TRIES", "9")
    settings = read_settings()
    assert (settings.autoloader_lease_s, settings.autoloader_file_tries) == (7.0, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTOLOADER_LEASE_S", "0"),
        ("AUTOLOADER_LEASE_S", "inf"),
        ("AUTOLOADER_SETTLE_S", "nan"),
        ("PREFECT_FLOW_RUN_TIMEOUT_SECONDS", "1e400"),
        ("AUTOLOADER_BATCH_FILES", "-1"),
        ("AUTOLOADER_BATCH_BYTES", "much-s3cret"),
        ("AUTOLOADER_PUBLIC_URL", "http://me:s3cret@here"),
        ("AUTOLOADER_PUBLIC_URL", "here:8000"),
        ("PREFECT_API_URL", "me:s3cret@localhost:4200/api"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_and_never_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidFieldError, match=name) as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("", None),
        ("http://localhost:4200/api", "http://localhost:4200/api"),
        ("https://me:pass@host/api/", "https://me:pass@host/api/"),
    ],
)
def test_an_address_of_prefect_is_one_or_is_not_set(
    value: str, known: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", value)
    assert read_settings().prefect_api_url == known
    monkeypatch.setenv("PREFECT_API_URL", "localhost:4200")
    with pytest.raises(InvalidFieldError, match="PREFECT_API_URL: It is no address of a Prefect server's API, such as"):
        read_settings()


def test_the_ledger_tells_when_it_was_written(tmp_path: Path) -> None:
    settings = Settings(autoloader_home=tmp_path)
    assert settings.ledger_written_at is None
    (tmp_path / "autoloader.db").touch()
    os.utime(tmp_path / "autoloader.db", (10, 10))
    assert settings.ledger_written_at == datetime.fromtimestamp(10, UTC)
    (tmp_path / "autoloader.db-wal").touch()
    os.utime(tmp_path / "autoloader.db-wal", (20, 20))
    assert settings.ledger_written_at == datetime.fromtimestamp(20, UTC)
    assert Settings(database_url="postgresql://h/d").ledger_written_at is None
