"""What every test gets: a clean environment, and real servers for those that ask."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.services.prefect_connection import ENVIRONMENT, IMPATIENT
from tests.support.azurite import Azurite, shared_azurite
from tests.support.fake_gcs import FakeGcs, shared_fake_gcs
from tests.support.postgres import PATIENT_CONNECT_TIMEOUT_S, Postgres, migrated_database, shared_postgres
from tests.support.prefect_server import PrefectServer, shared_prefect
from tests.support.seaweed import Seaweed, shared_seaweed

# Settings of the developer's own, which would change what the tests see.
FOREIGN = (
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "GCE_",
    "STORAGE_EMULATOR_HOST",
    "AUTOLOADER_",
    "PYICEBERG_",
    "PREFECT_",
    "DATABASE_URL",
    "SECRET_KEY",
    "PG",
)
# Where this machine's own keys would be asked for: nobody is there, so that no test gets one.
MACHINE = {
    "AZURE_IDENTITY_ENDPOINT": "http://127.0.0.1:9/",
    "GCE_METADATA_HOST": "127.0.0.1:9",
    "GCE_METADATA_IP": "127.0.0.1:9",
}
HOME_KEY = pytest.StashKey[str]()


# Whatever else is set: how long an example takes on a machine that others use, too, is no property of the code.
settings.register_profile("any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's settings and home, before any test module is imported.

    pyiceberg reads its configuration at import, so a fixture would come too late.
    """
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ |= MACHINE
    home = tempfile.mkdtemp(prefix="autoloader-home-")
    config.stash[HOME_KEY] = home
    os.environ["HOME"] = home
    # Prefect's library reads its settings when it is imported.
    os.environ |= {**ENVIRONMENT, **IMPATIENT, "PREFECT_HOME": f"{home}/prefect"}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home of this run."""
    home = config.stash.get(HOME_KEY, "")
    if home:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Seaweed]:
    """A running S3 server and Iceberg REST catalog, shared by all workers of this run."""
    with shared_seaweed(_shared_folder(tmp_path_factory, request) / "seaweed") as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A running PostgreSQL server, shared by all workers of this run."""
    folder = _shared_folder(tmp_path_factory, request) / "postgres"
    with shared_postgres(folder) as server, pytest.MonkeyPatch.context() as patched:
        patched.setattr("app.persistence.postgres.CONNECT_TIMEOUT_S", PATIENT_CONNECT_TIMEOUT_S)
        yield server


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[PrefectServer]:
    """A running Prefect server, shared by all workers of this run: each has its own installation."""
    with shared_prefect(_shared_folder(tmp_path_factory, request) / "prefect") as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The address of a database with the ledger's tables, to be copied."""
    return migrated_database(postgres)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Azurite]:
    """A running Azure Blob emulator, shared by all workers of this run."""
    with shared_azurite(_shared_folder(tmp_path_factory, request) / "azurite") as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[FakeGcs]:
    """A running Google Cloud Storage emulator, shared by all workers of this run."""
    with shared_fake_gcs(_shared_folder(tmp_path_factory, request) / "fake-gcs") as server:
        yield server


def _shared_folder(factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that is the same for all workers of this run."""
    base = factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture
def bucket(seaweed: Seaweed, tmp_path: Path) -> str:
    """The name of a new, empty bucket."""
    return seaweed.create_bucket(f"b-{os.getpid()}-{abs(hash(str(tmp_path))):x}"[:60])


@pytest.fixture
def s3_environ(seaweed: Seaweed) -> dict[str, str]:
    """Environment variables that lead to the S3 server, to be passed in."""
    return seaweed.environ
