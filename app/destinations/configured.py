"""Which catalogs there are: the built-in one in a folder, and those of pyiceberg's own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from pyiceberg.utils.config import Config
from strictyaml import YAMLError  # type: ignore[import-untyped]

from app.destinations.catalog import IcebergCatalog
from app.domain.errors import CatalogNotConfiguredError

LOCAL = "local"
BUSY_TIMEOUT_S = 30


def local_catalog(warehouse: Path) -> IcebergCatalog:
    """The built-in catalog: an SQLite file in the warehouse folder. Both are made by the first write.

    Args:
        warehouse: The folder; a relative one is taken from the working folder of now.
    """
    folder = warehouse.absolute()
    file = folder / "catalog.db"
    # The file: form takes any character a folder's name may have; the plain one ends at a question mark.
    uri = f"sqlite:///file:{quote(str(file))}?timeout={BUSY_TIMEOUT_S}&uri=true"
    return IcebergCatalog(LOCAL, {"type": "sql", "uri": uri, "warehouse": str(folder)}, local_file=file)


def configured_catalogs() -> list[str]:
    """Names of the catalogs in `.pyiceberg.yaml` and in PYICEBERG_CATALOG__… variables, sorted.

    Raises:
        CatalogNotConfiguredError: The configuration cannot be read.
    """
    try:
        return sorted(_config().get_known_catalogs())
    except ValueError as error:
        raise _unreadable(error) from error


def configured_catalog(name: str) -> IcebergCatalog:
    """The catalog of that name; nothing is opened yet.

    Raises:
        CatalogNotConfiguredError: There is none, or the configuration cannot be read.
    """
    try:
        properties = _config().get_catalog_config(name)
    except ValueError as error:
        raise _unreadable(error) from error
    if properties is None:
        raise CatalogNotConfiguredError(f"The catalog {name!r} is not configured.")
    return IcebergCatalog(name, _flat(properties))


def _config() -> Config:
    # Not pyiceberg's own instance, which was read when the library was imported.
    try:
        return Config()
    except (YAMLError, OSError, ValueError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> CatalogNotConfiguredError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CatalogNotConfiguredError(f"pyiceberg's configuration cannot be read: {first}.")


def _flat(properties: Mapping[str, object]) -> dict[str, str]:
    return {key: value for key, value in properties.items() if isinstance(value, str)}
