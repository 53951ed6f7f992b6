"""What commands on ingestions stand on, in this process and at a server alike: the same answers, the same words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli.desk import Desk, find
from app.cli.desk_afar import AfarDesk
from app.cli.desk_at_hand import open_at_hand
from app.cli.following import Story, changes, exit_status, line_of
from app.config import Settings
from app.domain.errors import AutoloaderError, FatalError, NotFoundError, UsageError
from app.domain.redaction import Redactor
from tests.contract.api_rigs import ROOT, database_rig

SETTINGS: dict[str, Any] = {
    "autoloader_settle_s": 0,
    "autoloader_lease_s": 60,
    "autoloader_direct_run_wait_s": 150,
}


@dataclass
class DeskRig:
    """A desk and the folder that its ingestions load from."""

    desk: Desk
    home: Path
    made: int = 0

    def document(self, **fields: Any) -> dict[str, Any]:
        """A definition of its own name and table, whose source is an empty folder of its own."""
        self.made += 1
        folder = self.home / f"landing-{self.made}"
        folder.mkdir()
        return {
            "name": f"Landing {self.made}",
            "source": {"path": str(folder)},
            "destination": {"database": "d", "table": f"t{self.made}"},
            **fields,
        }

    def landed(self, *texts: str) -> dict[str, Any]:
        """An ingestion of files with these texts."""
        document = self.document()
        for number, text in enumerate(texts):
            (Path(document["source"]["path"]) / f"{number}.json").write_text(text)
        return self.desk.create(document)


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeskRig]:
    home = tmp_path_factory.mktemp("at-hand")
    settings = Settings(autoloader_home=home, **SETTINGS)
    told = {name.upper(): str(value) for name, value in SETTINGS.items()}
    with open_at_hand(settings, {**os.environ, **told, "PYTHONPATH": str(ROOT)}, Redactor()) as desk:
        yield DeskRig(desk, home)


@pytest.fixture(scope="module")
def afar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeskRig]:
    with database_rig(tmp_path_factory.mktemp("afar")) as rig:
        # Pages of two, so that lists have several.
        desk = AfarDesk(str(rig.client.base_url), None, Redactor(), note=lambda _: None, page=2)
        yield DeskRig(desk, rig.home)


@pytest.fixture(params=["at_hand", "afar"])
def rig(request: pytest.FixtureRequest) -> DeskRig:
    found: DeskRig = request.getfixturevalue(request.param)
    return found


def refused(kind: type[AutoloaderError], call: Any, *arguments: Any, **named: Any) -> tuple[str, str, str]:
    """Code, message and remedy of the error that a call ends in."""
    with pytest.raises(kind) as raised:
        call(*arguments, **named)
    return raised.value.code, raised.value.message, raised.value.advice


def test_what_is_made_is_found_by_id_and_by_name(rig: DeskRig) -> None:
    made = rig.desk.create(rig.document(schedule={"frequency": "hourly"}))
    assert made["status"] == "active"
    assert made["warnings"] == ["Ingestion created but scheduling unavailable"]
    again = {**made, "warnings": []}
    assert rig.desk.ingestion(made["id"]) == find(rig.desk, made["id"]) == find(rig.desk, made["name"]) == again
    json.dumps(made)


def test_a_name_with_anything_in_it_is_found(rig: DeskRig) -> None:
    for name in ("Orders / é & 50 % ?x=1#2", "orders", "Orders"):
        made = rig.desk.create(rig.document(name=name))
        assert find(rig.desk, name)["id"] == made["id"]


def test_credentials_never_come_back(rig: DeskRig) -> None:
    keys = {"aws_access_key_id": "id-of-the-key", "aws_secret_access_key": "very-secret-key"}
    source = {"type": "s3", "path": "s3://bucket/x/", "credentials": keys}
    made = rig.desk.create(rig.document(source=source))
    assert made["credential_names"] == sorted(keys)
    assert "very-secret-key" not in json.dumps([made, find(rig.desk, made["id"])])


def test_lists_are_whole_and_newest_first(rig: DeskRig) -> None:
    made = [rig.desk.create(rig.document(name=f"Listed {number}")) for number in range(5)]
    rig.desk.pause(made[1]["id"])
    newest_first = [one["id"] for one in reversed(made)]
    assert [one["id"] for one in rig.desk.ingestions(q="LISTED", limit=100)] == newest_first
    assert [one["id"] for one in rig.desk.ingestions(q="listed", limit=3)] == newest_first[:3]
    assert [one["id"] for one in rig.desk.ingestions(q="listed", status="paused", limit=9)] == [made[1]["id"]]
    assert rig.desk.ingestions(source_type="gcs", limit=9) == []


def test_a_run_ends_as_it_does(rig: DeskRig) -> None:
    made = rig.landed('{"id": 1}\n{"id": 2}\n')
    begun = rig.desk.run(made["id"])
    assert begun == {
        "status": "completed",
        "method": "direct",
        "run_id": begun["run_id"],
        "message": "Ingestion run completed via direct execution",
    }
    (run,) = rig.desk.runs(made["id"], limit=9)
    assert run == rig.desk.run_of(made["id"], begun["run_id"]) == [*changes(rig.desk, made["id"], run["id"])][-1]
    assert (run["status"], run["files"]["loaded"], run["rows"]["loaded"]) == ("success", 1, 2)
    assert exit_status(run) == 0
    assert line_of(run).startswith("success, 1 file loaded, 2 rows, ")
    log = rig.desk.log(made["id"], run["id"], after=0)
    assert log[-1]["message"] == "run_ends status=success files=1 rows=2"
    numbers = [line["number"] for line in log]
    assert numbers == [*range(1, len(log) + 1)]
    assert rig.desk.log(made["id"], run["id"], after=numbers[-2]) == log[-1:]
    assert rig.desk.log(made["id"], run["id"], after=numbers[-1]) == []
    at_work = {**run, "status": "running", "files": {**run["files"], "loaded": 0}, "duration_s": None}
    progress = {"files": 3, "rows": 40, "bytes": 5000, "total_files": 7, "total_bytes": 9000}
    assert line_of({**at_work, "progress": progress}) == "running, 3 of 7 files read, 40 rows, 5.0 KB"
    assert line_of({**at_work, "progress": None}) == "running"
    assert line_of({**at_work, "progress": dict.fromkeys(progress, 0)}) == "running"


def test_a_run_is_followed_by_its_events_alone_and_no_line_is_told_twice(
    rig: DeskRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody looks unless there is news: where one is missing, this does not end.
    monkeypatch.setattr("app.services.following.ANYWAY_S", 6_000.0)
    monkeypatch.setattr("app.cli.stream_news.ANYWAY_S", 6_000.0)
    monkeypatch.setattr("app.cli.stream_news.LOOK_EVERY_S", 6_000.0)
    made = rig.landed('{"id": 1}\n', '{"id": ')
    begun = rig.desk.run(made["id"], waits=False)
    assert (begun["status"], begun["method"]) == ("running", "direct")
    story = Story(rig.desk, made["id"], begun["run_id"])
    lines = [line for run in changes(rig.desk, made["id"], begun["run_id"]) for line in story.news(run)]
    assert lines[-1].startswith("partial, 1 file loaded, 1 failed, 1 row, ")
    assert sum("run_begins" in line for line in lines) == 1
    assert sum("data_malformed" in line for line in lines) == 1
    kept = rig.desk.log(made["id"], begun["run_id"], after=0)
    stamps = [f"{line['at']}  {line['message']}" for line in kept]
    assert [line for line in lines if line in stamps] == stamps
    # Of a run that is over all is told at once, and nobody waits.
    again = Story(rig.desk, made["id"], begun["run_id"])
    assert [*again.log()] == kept


def test_a_run_with_a_bad_file_is_partial(rig: DeskRig) -> None:
    made = rig.landed('{"id": 1}\n', '{"id": ')
    begun = rig.desk.run(made["id"])
    assert (begun["status"], [error["category"] for error in begun["errors"]]) == ("partial", ["data_malformed"])
    assert exit_status(rig.desk.run_of(made["id"], begun["run_id"])) == 3


def test_what_is_paused_does_not_run_until_it_is_resumed(rig: DeskRig) -> None:
    made = rig.landed('{"id": 1}\n')
    assert rig.desk.pause(made["id"]) == {"status": "paused"}
    assert refused(FatalError, rig.desk.run, made["id"]) == (
        "not_active",
        "The ingestion is paused.",
        "Resume it first.",
    )
    assert rig.desk.resume(made["id"]) == {"status": "active"}
    assert rig.desk.run(made["id"])["status"] == "completed"


def test_what_is_deleted_is_gone(rig: DeskRig) -> None:
    made = rig.landed('{"id": 1}\n')
    rig.desk.run(made["id"])
    rig.desk.delete(made["id"], delete_table=True)
    code, message, _ = refused(NotFoundError, rig.desk.ingestion, made["id"])
    assert (code, message) == ("not_found", f"There is no ingestion {made['id']}.")
    assert refused(NotFoundError, rig.desk.delete, made["id"], delete_table=False)[0] == "not_found"
    assert refused(NotFoundError, find, rig.desk, made["name"])[1] == f"There is no ingestion '{made['name']}'."


def test_what_cannot_be_understood_is_refused_in_the_same_words(rig: DeskRig) -> None:
    document = rig.document()
    rig.desk.create(document)
    taken = refused(FatalError, rig.desk.create, document)
    assert taken[0] == "name_taken"
    assert document["name"] in taken[1]
    bad_time = rig.document(schedule={"frequency": "daily", "time": "25:99"})
    assert refused(UsageError, rig.desk.create, bad_time)[0] == "invalid_field"
    code, message, _ = refused(UsageError, rig.desk.create, rig.document(colour="red"))
    assert (code, "colour" in message) == ("invalid_field", True)
    assert refused(UsageError, rig.desk.ingestions, status="asleep", limit=1)[0] == "invalid_field"
    assert refused(UsageError, rig.desk.ingestions, source_type="ftp", limit=1)[0] == "invalid_field"


def test_without_prefect_there_is_nothing_to_migrate_to(rig: DeskRig) -> None:
    told = refused(FatalError, rig.desk.migrate, dry_run=True, on_progress=lambda _done, _of: None)
    assert told == (
        "scheduling_off",
        "PREFECT_API_URL is not set, so that scheduling is off.",
        "Set it to the address of the API of a Prefect server.",
    )
