"""The settings: environment or `.env`, read once by the process that starts."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.errors import InvalidFieldError


def _prefect_address(value: str | None) -> str | None:
    if not value:
        # As an empty variable is meant.
        return None
    if re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value):
        return value
    raise ValueError("It is no address of a Prefect server's API, such as http://localhost:4200/api")


class Settings(BaseSettings):
    """Every setting of the program, by the name of its environment variable.

    Relative paths are resolved once, against `autoloader_home`.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, allow_inf_nan=False)

    autoloader_home: Path = Field(default=Path(), description="Folder that relative paths start from.")
    database_url: str = Field(default="sqlite:///./autoloader.db", description="The ledger's database.")
    autoloader_warehouse: Path = Field(default=Path("./warehouse"), description="Folder of the catalog `local`.")
    autoloader_default_catalog: str = Field(default="local", description="Catalog of a table name that gives none.")
    autoloader_lease_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="Seconds a run's lease holds; renewed at a quarter of it."
    )
    autoloader_batch_bytes: Annotated[int, Field(gt=0)] = Field(
        default=1 << 30, description="Stored bytes that commit together."
    )
    autoloader_batch_files: Annotated[int, Field(gt=0)] = Field(
        default=10_000, description="Files that commit together."
    )
    autoloader_file_tries: Annotated[int, Field(gt=0)] = Field(
        default=3, description="How often a file with a retryable failure is tried by itself."
    )
    autoloader_catalog_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="Seconds that a REST catalog may be silent before a request is given up."
    )
    autoloader_settle_s: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="Seconds that a local file must stand still before it is taken."
    )
    secret_key: SecretStr | None = Field(
        default=None, description="Key that credentials are encrypted under; without it one is kept in a file."
    )
    secret_key_previous: SecretStr | None = Field(
        default=None, description="The key of before, while `autoloader keys rotate` is at work."
    )
    autoloader_direct_run_wait_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="Seconds that a request waits for a direct run to end."
    )
    autoloader_direct_runs: Annotated[int, Field(gt=0)] = Field(
        default=2, description="Direct runs that are carried out at once."
    )
    autoloader_worker: Literal["auto", "off"] = Field(
        default="auto", description="auto: where no worker is online the service starts one."
    )
    autoloader_local_roots: str | None = Field(
        default=None, description="Folders that local sources may lie in where there are tokens, separated by ':'."
    )
    autoloader_allowed_hosts: str | None = Field(
        default=None, description="Endpoints inside the network that sources may name where there are tokens."
    )
    autoloader_server: str | None = Field(
        default=None, description="Address of a service that `autoloader ingestions` is to ask."
    )
    autoloader_token: SecretStr | None = Field(default=None, description="Token for that service.")
    autoloader_worker_limit: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Runs that a worker carries out at once; without it as many as there are cores, or 2."
    )
    autoloader_worker_grace_s: Annotated[float, Field(ge=0)] = Field(
        default=20.0, description="Seconds that a worker which is told to stop lets its runs go on."
    )
    autoloader_run_memory_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Memory that a worker lets a run have, with all that it starts; without it no limit."
    )
    prefect_api_url: Annotated[str | None, AfterValidator(_prefect_address)] = Field(
        default=None, description="Address of the Prefect server's API."
    )
    autoloader_public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s@?#]+$",
        description="Address under which Prefect reaches this service; without it Prefect is not asked to call.",
    )
    prefect_default_work_queue: str = Field(default="autoloader-default", description="Work queue of scheduled runs.")
    prefect_high_memory_work_queue: str = Field(
        default="autoloader-high-memory", description="Work queue of runs with much to load."
    )
    prefect_priority_work_queue: str = Field(
        default="autoloader-priority", description="Work queue of manual runs and retries."
    )
    prefect_flow_run_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=3600.0, description="Seconds that an attempt of a run may take."
    )
    prefect_max_task_retries: Annotated[int, Field(ge=0)] = Field(
        default=3, description="How often a run goes on that ended in a retryable error or with its process."
    )
    prefect_task_retry_delay_seconds: Annotated[float, Field(ge=0)] = Field(
        default=60.0, description="Seconds until it does."
    )
    high_memory_threshold_gb: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="New GB from which on runs go to the high-memory queue."
    )
    cost_per_dbu_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.40, description="Price of a compute unit's hour."
    )
    storage_cost_per_gb: Annotated[float, Field(ge=0)] = Field(default=0.023, description="Price of a GB for a month.")
    list_operation_cost_per_1000: Annotated[float, Field(ge=0)] = Field(
        default=0.005, description="Price of a thousand list requests."
    )

    @property
    def home(self) -> Path:
        """The folder that relative paths start from, absolute."""
        return self.autoloader_home.expanduser().resolve()

    @property
    def warehouse(self) -> Path:
        """The folder of the catalog `local`, absolute."""
        return (self.home / self.autoloader_warehouse.expanduser()).resolve()

    @property
    def local_roots(self) -> tuple[Path, ...]:
        """The folders of `autoloader_local_roots`, by their real paths."""
        given = (self.autoloader_local_roots or "").split(os.pathsep)
        return tuple((self.home / Path(one).expanduser()).resolve() for one in given if one)

    @property
    def ledger_url(self) -> str:
        """`database_url`, with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        path = self.database_url.removeprefix(prefix)
        if path == self.database_url or path.startswith("/") or path in ("", ":memory:"):
            return self.database_url
        return f"{prefix}{(self.home / path).resolve()}"

    @property
    def ledger_written_at(self) -> datetime | None:
        """When the ledger was last written, as far as its file tells; None where there is none, or no file of it.

        It is read without the database's library, which takes longer to import than all else.
        """
        path = self.ledger_url.removeprefix("sqlite:///")
        times_s = []
        for file in (path, f"{path}-wal"):
            with suppress(OSError, ValueError):
                times_s.append(Path(file).stat().st_mtime)
        return datetime.fromtimestamp(max(times_s), UTC) if times_s and path.startswith("/") else None


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        InvalidFieldError: One of them has a value that is not allowed; the message names it, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise InvalidFieldError(f"A setting has a value that is not allowed: {problems}.") from None
