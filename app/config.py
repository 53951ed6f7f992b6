"""The settings: environment or `.env`, read once by the process that starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.domain.errors import InvalidFieldError


class Settings(BaseSettings):
    """Every setting of the program, by the name of its environment variable.

    Relative paths are resolved once, against `autoloader_home`.
    """

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

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

    @property
    def home(self) -> Path:
        """The folder that relative paths start from, absolute."""
        return self.autoloader_home.expanduser().resolve()

    @property
    def warehouse(self) -> Path:
        """The folder of the catalog `local`, absolute."""
        return (self.home / self.autoloader_warehouse.expanduser()).resolve()

    @property
    def ledger_url(self) -> str:
        """`database_url`, with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        path = self.database_url.removeprefix(prefix)
        if path == self.database_url or path.startswith("/") or path in ("", ":memory:"):
            return self.database_url
        return f"{prefix}{(self.home / path).resolve()}"


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        InvalidFieldError: One of them has a value that is not allowed; the message names it, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidFieldError(f"A setting has a value that is not allowed: {problems}.") from None
