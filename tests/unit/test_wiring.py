from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.config import Settings
from app.domain.errors import AutoloaderError, LedgerUnreadableError, SecretKeyError, UsageError, WrongDatabaseError
from app.domain.redaction import Redactor
from app.services.prefect_connection import ENVIRONMENT, IMPATIENT
from app.services.preflight import LoadRequest
from app.wiring.environment import child_environ, worker_environ
from app.wiring.limits import reach_in_server_mode
from app.wiring.product import build
from app.wiring.scheduling import open_executor, prefect_service
from app.wiring.service import build_service
from app.wiring.stores import rotate_keys
from tests.fakes.access import MemoryTokens


def settings(folder: Path, **more: str) -> Settings:
    return Settings(autoloader_home=folder, **more)  # type: ignore[arg-type]


def test_an_installation_for_loads_alone_says_what_the_service_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UsageError, match=r"iceberg-autoloader\[server\]"):
        build_service(settings(tmp_path), {}, Redactor())
    with pytest.raises(UsageError), open_executor(settings(tmp_path), {}, Redactor()):
        pass
    with pytest.raises(UsageError):
        rotate_keys(settings(tmp_path), Redactor())
    assert list(tmp_path.iterdir()) == []


def test_whoever_carries_runs_out_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(WrongDatabaseError, match=str(tmp_path)), open_executor(settings(tmp_path), {}, Redactor()):
        pass
    with pytest.raises(LedgerUnreadableError):
        rotate_keys(settings(tmp_path), Redactor())
    assert list(tmp_path.iterdir()) == []


def test_flow_runs_know_which_queue_and_which_threshold_are_the_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*ENVIRONMENT, *IMPATIENT):
        # They are set for the whole process.
        monkeypatch.setenv(name, "as before")
    given = settings(tmp_path, prefect_high_memory_work_queue="large", high_memory_threshold_gb="0.001")
    service = build_service(given, {}, Redactor())
    prefect = prefect_service(given, service.store).settings
    service.close()
    assert (prefect.high_memory_queue, prefect.high_memory_bytes) == ("large", 1_073_741)
    told = {"HIGH_MEMORY_THRESHOLD_GB": "0.001", "PREFECT_HIGH_MEMORY_WORK_QUEUE": "large"}
    assert told.items() <= prefect.job_environ.items()


def test_a_service_on_postgresql_needs_a_key_before_it_asks_anything(tmp_path: Path) -> None:
    url = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"
    with pytest.raises(SecretKeyError, match="PostgreSQL"):
        build_service(settings(tmp_path, database_url=url), {}, Redactor())


def test_keys_of_the_settings_are_hidden(tmp_path: Path) -> None:
    redactor = Redactor()
    given = settings(tmp_path, secret_key="a passphrase of mine", secret_key_previous="the one of before")
    service = build_service(given, {}, redactor)
    service.close()
    assert redactor.text("a passphrase of mine, the one of before") == "***, ***"
    assert "passphrase" not in repr(given)


def test_children_are_told_where_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = child_environ(Settings(), {"MINE": "yes"})
    assert told == {
        "MINE": "yes",
        "AUTOLOADER_HOME": str(tmp_path),
        "DATABASE_URL": f"sqlite:///{tmp_path}/autoloader.db",
    }


def test_whoever_works_for_prefect_is_told_who_it_is_apart_from_the_address(tmp_path: Path) -> None:
    given = settings(tmp_path, prefect_api_url="http://me:p%40ssw%2Ford@host:4200/api")
    environ = worker_environ(given, {"PREFECT_API_URL": "another", "PREFECT_API_AUTH_STRING": "another"})
    assert environ["PREFECT_API_URL"] == "http://host:4200/api"
    assert environ["PREFECT_API_AUTH_STRING"] == "me:p@ssw/ord"
    plain = worker_environ(settings(tmp_path, prefect_api_url="http://host/api"), {"PREFECT_API_AUTH_STRING": "a:b"})
    assert (plain["PREFECT_API_URL"], plain["PREFECT_API_AUTH_STRING"]) == ("http://host/api", "a:b")


def test_what_sources_and_catalogs_are_opened_with_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__FAR__TYPE", "rest")
    monkeypatch.setenv("PYICEBERG_CATALOG__FAR__URI", "http://me:of-an-address@127.0.0.1:9")
    monkeypatch.setenv("PYICEBERG_CATALOG__FAR__ADLS__ACCOUNT_KEY", "of-an-account")
    redactor = Redactor()
    product = build(settings(tmp_path, prefect_api_url="http://me:of-prefect@host"), {"A_TOKEN": "of-ours"}, redactor)
    product.catalog("far")
    keys = {"aws_secret_access_key": "of-a-source", "aws_region": "far-away", "endpoint_url": "http://127.0.0.1:9"}
    request = LoadRequest("s3://bucket/", product.table_name("a.b"), {}, {**keys, "aws_access_key_id": "who-it-is"})
    with pytest.raises(AutoloaderError):
        product.estimate_cost(request, None)
    product.close()
    shown = redactor.text("of-an-address of-an-account of-prefect of-ours of-a-source who-it-is far-away")
    assert shown == "*** *** *** *** *** *** far-away"


def test_what_is_the_programs_own_is_no_source_although_it_lies_below_a_root(tmp_path: Path) -> None:
    """The key is kept elsewhere, and the home has another name; what is asked for are real paths."""
    home, keys = tmp_path / "home", tmp_path / "keys"
    home.mkdir()
    keys.mkdir()
    (home / "secret.key").symlink_to(keys / "secret")
    (tmp_path / "name").symlink_to(home)
    tokens = MemoryTokens()
    reach = reach_in_server_mode(settings(tmp_path / "name", autoloader_local_roots="/"), tokens)
    assert reach() is None
    tokens.made()
    found = reach()
    assert found is not None
    own = (
        "warehouse/d/t/data/x.parquet",
        "autoloader.db",
        "autoloader.db-wal",
        ".env",
        ".pyiceberg.yaml",
        "prefect/prefect.db",
    )
    for path in (
        *(home / one for one in own),
        keys / "secret",
        Path("/proc/self/environ"),
        Path("/dev/fd/3"),
        Path("/sys/x"),
    ):
        assert not found.has_path(bytes(path)), path
    for path in (home / "landing/a.json", home / "prefect.json", keys / "other"):
        assert found.has_path(bytes(path)), path


def test_roots_are_the_folders_that_their_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    tokens = MemoryTokens()
    tokens.made()
    found = reach_in_server_mode(settings(tmp_path, autoloader_local_roots="link"), tokens)()
    assert found is not None
    assert found.has_path(bytes(tmp_path / "real/a.json"))
    assert not found.has_path(bytes(tmp_path / "other/a.json"))
