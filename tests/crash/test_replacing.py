"""A load that replaces rows is killed at every named place; the next one leaves each file in one version, whole.

The places of one catalog are gone through on one table, version after version, so that data files are found in every
shape: shared by the files that change and others, written anew before, and of one file alone.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.scenarios.test_upkeep import SHORT, data_names, names_in_use
from tests.support.events import RECORDS, event_file
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

FILES = (0, 1, 2)
PLACES = (
    "batch_claimed:before",
    "batch_claimed:after",
    "rows_taken_out:before",
    "rows_taken_out:after",
    "manifest_written:after",
    "commit_staged:after",
    "commit_request:before",
    "commit_request:after",
    "committed:after",
    "close_committed:before",
    "close_committed:after",
    "run_finished:after",
)


@dataclass
class Replacing:
    """A table, and which version of each file it should hold."""

    world: World
    versions: dict[int, int] = field(default_factory=dict)
    landed: int = 0

    def land(self, *numbers: int, **more: object) -> None:
        self.landed += 1
        for number in numbers:
            self.versions[number] = self.landed
            # A new version has fewer rows, so that a mixture with an older one would be seen by its count too.
            whole = event_file(number, version=self.landed, **more).splitlines(keepends=True)
            self.world.land({f"data/batch_{number}.json": b"".join(whole[: self.rows(number)])})

    def rows(self, number: int) -> int:
        return RECORDS - self.versions[number]

    def load(self) -> dict[str, int]:
        report = self.world.home.json(
            "load", self.world.source, "--to", self.world.table, "--on-file-change", "replace"
        )
        assert report["status"] == "success", report
        files: dict[str, int] = report["files"]
        return files

    def die(self, failpoint: str) -> None:
        done = self.world.home.run(
            "load", self.world.source, "--to", self.world.table, "--on-file-change", "replace",
            environ={"AUTOLOADER_FAILPOINT": failpoint},
        )  # fmt: skip
        assert done.status == -signal.SIGKILL, f"{failpoint} was not reached: {done.stdout}{done.stderr}"

    def assert_exact(self) -> None:
        """Each file's rows are those of its newest version, every one of them once."""
        found = self.world.home.query(
            self.world.table,
            "select _file_path path, count(*) n, count(distinct id) ids, sum(id) total, min(version) low, "
            f"max(version) high, count(distinct _batch_id) batches from {self.world.table} group by 1 order by 1",
        )
        expected = [
            {
                "path": f"file://{Path(self.world.source).resolve()}/data/batch_{number}.json",
                "n": self.rows(number),
                "ids": self.rows(number),
                "total": sum(range(number * RECORDS, number * RECORDS + self.rows(number))),
                "low": version,
                "high": version,
                "batches": 1,
            }
            for number, version in sorted(self.versions.items())
        ]
        assert found == expected


@pytest.fixture(scope="module", params=["local-local", "local-rest"])
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed
) -> Iterator[Replacing]:
    """Three files of one data file, in either catalog."""
    world = make_world(request.param, tmp_path_factory.mktemp("replacing"), seaweed)
    # Where the table's data files lie, whatever the source is.
    one = Replacing(replace(world, seaweed=seaweed if request.param.endswith("rest") else None))
    one.land(*FILES)
    one.load()
    yield one
    # Of all that was killed nothing is left that anybody would have to look for.
    one.world.home.json("sweep", one.world.table, environ=SHORT)
    assert data_names(one.world) == names_in_use(one.world)
    checked = one.world.home.json("ledger", "check", one.world.table, one.world.source)
    assert checked["equal"], checked


@pytest.mark.parametrize("failpoint", PLACES)
def test_killed_while_replacing(table: Replacing, failpoint: str) -> None:
    table.land(*(FILES[:1] if table.landed % 2 else FILES[:2]), **{failpoint.replace(":", "_"): True})
    table.die(failpoint)
    table.load()
    table.assert_exact()
