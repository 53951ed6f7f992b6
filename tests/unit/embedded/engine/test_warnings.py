"""Files that disagree about a column are reported as a mixture, whichever child looked at which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading
from app.engines.embedded.engine import EmbeddedEngine
from tests.fakes.files import FolderReader, put


@pytest.fixture
def engine() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(processes=2)
    yield engine
    engine.close()


def test_files_that_disagree_are_said_once(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [
        put(tmp_path, f"{i}.json", b'{"same": 1, "code": %s}\n' % (b'"A7"' if i == 3 else str(i).encode()))
        for i in range(8)
    ]
    inferred = engine.infer(files, Reading(FolderReader(), FormatOptions(FileFormat.JSON)))
    assert [str(field.type) for field in inferred.schema.fields] == ["long", "string"]
    (warning,) = inferred.warnings
    assert '"code"' in warning
