"""What every test gets: a clean environment, and real servers for those that ask."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Postgres, migrated_database, shared_postgres
from tests.support.seaweed import Seaweed, shared_seaweed

# Settings of the developer's own, which would change what the tests see.
FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "AUTOLOADER_", "PYICEBERG_", "PREFECT_", "DATABASE_URL", "SECRET_KEY", "PG")
HOME_KEY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's settings and home, before any test module is imported.

    pyiceberg reads its configuration at import, so a fixture would come too late.
    """
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    home = tempfile.mkdtemp(prefix="autoloader-home-")
    config.stash[HOME_KEY] = home
    os.environ["HOME"] = home


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home of this run."""
    home = config.stash.get(HOME_KEY, "")
    if home:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Seaweed]:
    """A running S3 server and Iceberg REST catalog, shared by all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    with shared_seaweed(shared / "seaweed") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A running PostgreSQL server, shared by all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    with shared_postgres(shared / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The address of a database with the ledger's tables, to be copied."""
    return migrated_database(postgres)


@pytest.fixture
def bucket(seaweed: Seaweed, tmp_path: Path) -> str:
    """The name of a new, empty bucket."""
    return seaweed.create_bucket(f"b-{os.getpid()}-{abs(hash(str(tmp_path))):x}"[:60])


@pytest.fixture
def s3_environ(seaweed: Seaweed) -> dict[str, str]:
    """Environment variables that lead to the S3 server, to be passed in."""
    return seaweed.environ
