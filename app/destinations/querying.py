"""Read a table back by another library than the one that committed it: DuckDB with its Iceberg extension."""

from __future__ import annotations

import importlib.resources
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata

from app.destinations.keywords import KEYWORDS
from app.destinations.sink import is_local, local_path
from app.domain.errors import InvalidQueryError, TableUnreadableError
from app.domain.table import TableName

if TYPE_CHECKING:
    import duckdb

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS_AT_A_TIME = 1000
# What a query of ours may hold in memory, however many files the table names.
STREAM_MEMORY = "1GB"
TIMESTAMPTZ = "TIMESTAMP WITH TIME ZONE"
# Names of DuckDB's own databases; a catalog of such a name is left out of the names a table goes by.
RESERVED_DATABASES = {"system", "temp", "memory"}
# The database that bare names are looked up in; no catalog and no namespace is called so.
HOME = "autoloader query"
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def printed_query(table: TableName) -> str:
    """A query over the table that runs as it stands, by `query` and in DuckDB with the catalog attached."""
    return f"select * from {_printed('.'.join(table.namespace))}.{_printed(table.name)} limit 10"  # noqa: S608  # quoted


def query(
    table: TableName, metadata: TableMetadata, metadata_location: str, io_properties: Mapping[str, str], sql: str
) -> list[dict[str, object]]:
    """The rows that `sql` gives over the table, column by column name.

    Times with a zone are in UTC. A second column of the same name has `_2` behind it.

    Raises:
        InvalidQueryError: It is not one SELECT, or DuckDB cannot run it.
        TableUnreadableError: DuckDB cannot read the table.
    """
    import duckdb  # noqa: PLC0415  # 40 MB that only this needs

    with _reader(table, metadata, metadata_location, io_properties) as connection:
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidQueryError("Only one SELECT can be run.")
            return list(_rows(connection, sql))
        except (duckdb.IOException, duckdb.HTTPException) as error:
            raise TableUnreadableError(f"DuckDB cannot read the table {table}: {_first_line(error)}.") from error
        except duckdb.Error as error:
            raise InvalidQueryError(f"The query cannot be run: {str(error).strip()}") from error


def stream(
    table: TableName, metadata: TableMetadata, metadata_location: str, io_properties: Mapping[str, str], sql: str
) -> Iterator[tuple[Any, ...]]:
    """The rows that a SELECT of ours gives over the table, one by one; what does not fit into memory goes to disk.

    Args:
        table: The table; the query names it by its bare name.
        metadata: Of the moment to read.
        metadata_location: The file of that metadata.
        io_properties: Those of the table's file I/O.
        sql: Without columns that hold times with a zone.

    Raises:
        TableUnreadableError: DuckDB cannot read the table.
    """
    import duckdb  # noqa: PLC0415

    with _reader(table, metadata, metadata_location, io_properties, memory=STREAM_MEMORY) as connection:
        try:
            result = connection.execute(sql)
            while rows := result.fetchmany(ROWS_AT_A_TIME):
                yield from rows
        except duckdb.Error as error:
            raise TableUnreadableError(f"DuckDB cannot read the table {table}: {_first_line(error)}.") from error


@contextmanager
def _reader(
    table: TableName,
    metadata: TableMetadata,
    metadata_location: str,
    io_properties: Mapping[str, str],
    *,
    memory: str = "",
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees the table and nothing else."""
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="autoloader-query-") as spill, closing(_connect()) as connection:
        try:
            if memory:
                connection.execute(f"set memory_limit = {_text(memory)}")
            _prepare(connection, table, metadata, metadata_location, io_properties)
            _lock(connection, metadata, metadata_location, spill)
        except duckdb.Error as error:
            raise TableUnreadableError(f"DuckDB cannot read the table {table}: {_first_line(error)}.") from error
        yield connection


def _connect() -> duckdb.DuckDBPyConnection:
    import duckdb  # noqa: PLC0415

    # No extension is ever fetched from the network: the three that are needed are installed as packages.
    return duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )


def _load_extension(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    import duckdb  # noqa: PLC0415

    package = importlib.resources.files(f"duckdb_extension_{name}")
    path = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    connection.execute(f"load {_text(str(path))}")


def _prepare(
    connection: duckdb.DuckDBPyConnection,
    table: TableName,
    metadata: TableMetadata,
    metadata_location: str,
    io_properties: Mapping[str, str],
) -> None:
    for extension in ("avro", "iceberg"):
        _load_extension(connection, extension)
    if not is_local(metadata_location):
        _load_extension(connection, "httpfs")
        connection.execute(_secret(io_properties))
    path = str(local_path(metadata_location)) if is_local(metadata_location) else metadata_location
    relation = f"iceberg_scan({_text(path)})"
    if metadata.current_snapshot() is None:
        relation += " limit 0"
    connection.execute(f"attach ':memory:' as {_name(HOME)}")
    connection.execute(f"use {_name(HOME)}")
    # DuckDB's first database would make a namespace of the same name ambiguous.
    connection.execute("detach memory")
    namespace = ".".join(table.namespace)
    catalogs = [HOME]
    if table.catalog.lower() not in {*RESERVED_DATABASES, namespace.lower()}:
        connection.execute(f"attach ':memory:' as {_name(table.catalog)}")
        catalogs.append(table.catalog)
    for catalog in catalogs:
        schema = f"{_name(catalog)}.{_name(namespace)}"
        connection.execute(f"create schema if not exists {schema}")
        connection.execute(f"create view {schema}.{_name(table.name)} as from {relation}")
    connection.execute(f"use {_name(HOME)}.{_name(namespace)}")


def _lock(connection: duckdb.DuckDBPyConnection, metadata: TableMetadata, metadata_location: str, spill: str) -> None:
    provider = load_location_provider(metadata.location, metadata.properties)
    folders = [metadata.location, provider.data_path, provider.metadata_path, metadata_location.rpartition("/")[0]]
    paths = sorted({f"{_reachable(folder)}/" for folder in folders})
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"set temp_directory = {_text(spill)}")
    connection.execute(f"set allowed_directories = [{', '.join(_text(path) for path in paths)}]")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")


def _reachable(folder: str) -> str:
    return (str(local_path(folder)) if is_local(folder) else folder).rstrip("/")


def _secret(properties: Mapping[str, str]) -> str:
    """The statement that gives DuckDB the table's own key for its object store."""
    options = {
        "key_id": properties.get("s3.access-key-id") or properties.get("client.access-key-id"),
        "secret": properties.get("s3.secret-access-key") or properties.get("client.secret-access-key"),
        "session_token": properties.get("s3.session-token") or properties.get("client.session-token"),
        "region": properties.get("s3.region") or properties.get("client.region"),
    }
    parts = [f"{name} {_text(value)}" for name, value in options.items() if value]
    endpoint = urlparse(properties.get("s3.endpoint", ""))
    if endpoint.netloc:
        virtual = properties.get("s3.force-virtual-addressing", "false").lower() == "true"
        parts += [
            f"endpoint {_text(endpoint.netloc + endpoint.path.rstrip('/'))}",
            f"use_ssl {'true' if endpoint.scheme == 'https' else 'false'}",
            f"url_style {_text('vhost' if virtual else 'path')}",
        ]
    return f"create secret (type s3{''.join(', ' + part for part in parts)})"


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[dict[str, object]]:
    relation = connection.query(sql)
    kinds = [str(kind) for kind in relation.types]
    names = _distinct(relation.columns)
    if any(TIMESTAMPTZ in kind for kind in kinds):
        # DuckDB hands such values out through a library that we do not have.
        relation = relation.project(", ".join(_projected(n, kind) for n, kind in enumerate(kinds, start=1)))
    while rows := relation.fetchmany(ROWS_AT_A_TIME):
        for row in rows:
            yield {name: _value(v, kind) for name, v, kind in zip(names, row, kinds, strict=True)}


def _projected(position: int, kind: str) -> str:
    if kind == TIMESTAMPTZ:
        return f"epoch_us(#{position})"
    if TIMESTAMPTZ in kind:
        return f"cast(#{position} as {kind.replace(TIMESTAMPTZ, 'VARCHAR')})"
    return f"#{position}"


def _value(value: Any, kind: str) -> object:  # noqa: ANN401
    if kind == TIMESTAMPTZ and value is not None:
        return EPOCH + timedelta(microseconds=value)
    return value


def _distinct(names: list[str]) -> list[str]:
    taken = set(names)
    result: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in result or (number > 1 and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        result.append(unique)
    return result


def _printed(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) and name.lower() not in KEYWORDS else _name(name)


def quoted(name: str) -> str:
    """The name as SQL takes it, whatever is in it."""
    return _name(name)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
