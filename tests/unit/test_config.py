from __future__ import annotations

from pathlib import Path

import pytest

from app.config import read_settings
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
    [("AUTOLOADER_LEASE_S", "0"), ("AUTOLOADER_BATCH_FILES", "-1"), ("AUTOLOADER_BATCH_BYTES", "much-s3cret")],
)
def test_a_value_that_is_not_allowed_is_named_and_never_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidFieldError, match=name) as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)
