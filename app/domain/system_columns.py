"""The columns that we add to every table, so that each row says where it came from."""

from __future__ import annotations

from app.domain.types import STRING, TIMESTAMPTZ, Field, Struct

FILE_PATH = "_file_path"
FILE_MODIFIED_AT = "_file_modified_at"
BATCH_ID = "_batch_id"
RESCUED_DATA = "_rescued_data"

PROVENANCE = (Field(FILE_PATH, STRING), Field(FILE_MODIFIED_AT, TIMESTAMPTZ), Field(BATCH_ID, STRING))
RESCUE = Field(RESCUED_DATA, STRING)
NAMES = frozenset({FILE_PATH, FILE_MODIFIED_AT, BATCH_ID, RESCUED_DATA})


def system_columns(*, provenance: bool) -> tuple[Field, ...]:
    """The system columns of a table, in order, without field ids."""
    return (*PROVENANCE, RESCUE) if provenance else (RESCUE,)


def is_system(name: str) -> bool:
    """Whether a column of that name is ours; names match without regard to case, as everywhere."""
    return name.lower() in NAMES


def data_columns(schema: Struct) -> Struct:
    """The columns of `schema` that hold the files' own data."""
    return Struct(tuple(f for f in schema.fields if not is_system(f.name)))
