"""Which catalogs there are: the built-in one in a folder, and those of pyiceberg's own configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from pyiceberg.utils.config import Config
from strictyaml import YAMLError  # type: ignore[import-untyped]

from app.destinations.catalog import TIMEOUT_S, IcebergCatalog, open_catalog
from app.domain.errors import CatalogNotConfiguredError
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.redaction import secrets_of

LOCAL = "local"
# By name, as pyiceberg takes it.
SYNCED_IO = "app.destinations.durable.SyncedFileIO"
BUSY_TIMEOUT_S = 30


def local_catalog(warehouse: Path, failpoints: Failpoints = NO_FAILPOINTS) -> IcebergCatalog:
    """The built-in catalog: an SQLite file in the warehouse folder. Both are made by the first write.

    Args:
        warehouse: The folder; a relative one is taken from the working folder of now.
        failpoints: For tests.
    """
    folder = warehouse.absolute()
    file = folder / "catalog.db"
    # The file: form takes any character a folder's name may have; the plain one ends at a question mark.
    uri = f"sqlite:///file:{quote(str(file))}?timeout={BUSY_TIMEOUT_S}&uri=true"
    properties = {"type": "sql", "uri": uri, "warehouse": str(folder), "py-io-impl": SYNCED_IO}
    return IcebergCatalog(LOCAL, properties, local_file=file, failpoints=failpoints)


def configured_catalogs() -> list[str]:
    """Names of the catalogs in `.pyiceberg.yaml` and in PYICEBERG_CATALOG__… variables, sorted.

    Raises:
        CatalogNotConfiguredError: The configuration cannot be read.
    """
    try:
        return sorted(_config().get_known_catalogs())
    except ValueError as error:
        raise _unreadable(error) from error


def configured_catalog(
    name: str,
    *,
    timeout_s: float = TIMEOUT_S,
    failpoints: Failpoints = NO_FAILPOINTS,
    learn: Callable[[Iterable[str]], None] = lambda _secrets: None,
) -> IcebergCatalog:
    """The catalog of that name; nothing is opened yet.

    Args:
        name: As pyiceberg's configuration has it.
        timeout_s: Seconds that a REST catalog may be silent.
        failpoints: For tests.
        learn: Told every secret of its configuration.

    Raises:
        CatalogNotConfiguredError: There is none, or the configuration cannot be read.
    """
    try:
        properties = _config().get_catalog_config(name)
    except ValueError as error:
        raise _unreadable(error) from error
    if properties is None:
        raise CatalogNotConfiguredError(f"The catalog {name!r} is not configured.")
    opener = partial(open_catalog, timeout_s=timeout_s)
    flat = _flat(properties)
    learn(secrets_of(flat))
    return IcebergCatalog(name, flat, opener=opener, failpoints=failpoints)


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
