"""The files that land: every row says which file, version and place in it it is from, and carries a checksum."""

from __future__ import annotations

import csv
import enum
import io
import json
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("json", "csv", "parquet")
# Columns that come up with a later version of some file.
EXTRAS = ("depth", "height", "width")
LONGEST_PAD = 40


class Kind(enum.StrEnum):
    """What is to become of a version that is loaded."""

    GOOD = "good"
    BAD = "bad"
    EMPTY = "empty"


@dataclass(frozen=True)
class Version:
    """One version of one file."""

    name: str
    number: int
    rows: int
    kind: Kind = Kind.GOOD
    extras: tuple[str, ...] = ()

    def records(self) -> list[dict[str, Any]]:
        """Its rows."""
        return [self._record(row) for row in range(self.rows)]

    def _record(self, row: int) -> dict[str, Any]:
        dice = random.Random(f"{self.name} {self.number} {row}")  # noqa: S311 - the same again for the same row
        record = {
            "file": self.name,
            "version": self.number,
            "row": row,
            "pad": f"{dice.getrandbits(4 * LONGEST_PAD):x}"[: dice.randint(1, LONGEST_PAD)] + "é",
            **{name: row * 7 + len(name) for name in self.extras},
        }
        return record | {"checksum": checksum(record)}

    def content(self) -> bytes:
        """The file, in the format that its name tells."""
        if self.kind is Kind.EMPTY:
            return b""
        encode = {"json": _json, "csv": _csv, "parquet": _parquet}[self.name.rpartition(".")[2]]
        return encode(self.records(), broken=self.kind is Kind.BAD)


def checksum(record: Mapping[str, Any]) -> int:
    """Of all values that a row has, but for the checksum itself and what the product adds."""
    kept = {n: v for n, v in record.items() if v is not None and n != "checksum" and not n.startswith("_")}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def _json(records: list[dict[str, Any]], *, broken: bool) -> bytes:
    lines = [json.dumps(record) for record in records]
    if broken:
        lines.insert(len(lines) // 2, '{"file": "cut of')
    return "".join(f"{line}\n" for line in lines).encode()


def _csv(records: list[dict[str, Any]], *, broken: bool) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    # A field that is quoted and never ends.
    return (text.getvalue() + ('"cut of' if broken else "")).encode()


def _parquet(records: list[dict[str, Any]], *, broken: bool) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()[: -9 if broken else None]
