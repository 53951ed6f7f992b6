"""Children: what they know, what they may, whom they take with them when they die, and that they never outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from app.domain.errors import Category, EngineDiedError
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ports import Reading, WriteOrder
from app.domain.types import LONG, STRING, Field
from app.engines.embedded.engine import EmbeddedEngine
from app.engines.embedded.pool import child_environment
from tests.fakes.catalog import FolderSink
from tests.fakes.files import FolderReader, parquet_bytes, put
from tests.support.servers import is_alive
from tests.support.tables import table_schema, written, written_rows

SCHEMA = table_schema(Field("id", LONG), Field("name", STRING))
ROOT = Path(__file__).resolve().parents[4]


# Children of engines that other tests keep for longer than one test.
OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    OTHERS.update(process.pid for process in children())
    yield
    OTHERS.clear()


@pytest.fixture
def engine(others: None) -> Iterator[EmbeddedEngine]:  # noqa: ARG001 - it has to come first
    engine = EmbeddedEngine(processes=2)
    yield engine
    engine.close()
    assert children() == []


def children(of: int | None = None) -> list[psutil.Process]:
    """Child processes of an engine in process `of`, this one by default, but for those that were there before."""
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            if process.pid not in OTHERS and "app.engines.embedded.child" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def until(condition: object, *, timeout_s: float = 120.0) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class Counted:
    def __init__(self) -> None:
        self.files = self.rows = 0

    def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        assert min(files, rows, stored_bytes) >= 0
        self.files += files
        self.rows += rows


def rows_of(*ids: int) -> bytes:
    return parquet_bytes(pa.table({"id": list(ids), "name": [f"n{i}" for i in ids]}))


def order(folder: Path, files: list[SourceFile], reader: FolderReader | None = None) -> WriteOrder:
    reading = Reading(reader or FolderReader(), FormatOptions(FileFormat.PARQUET))
    return WriteOrder(tuple(files), reading, SCHEMA, FolderSink(str(folder / "data")), "b-1", "t")


def data_files(folder: Path) -> set[str]:
    return {str(path) for path in (folder / "data").glob("*")}


def test_a_process_that_dies_once_costs_no_row(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [put(tmp_path, f"{i:02}.parquet", rows_of(i)) for i in range(20)]
    files.append(put(tmp_path, "10-kill-once.parquet", rows_of(100)))
    counted = Counted()

    result = engine.write(order(tmp_path, files), counted)

    assert sorted(r["id"] for r in written_rows(result)) == [*range(20), 100]
    assert result.failed == ()
    assert {f.path for f in result.data_files} == data_files(tmp_path)
    assert (counted.files, counted.rows) == (21, 21)


def test_what_is_expected_finds_its_processes_up(engine: EmbeddedEngine, tmp_path: Path) -> None:
    engine.expect([])
    assert children() == []
    big = [put(tmp_path, name, b"")._replace(size_bytes=10**9) for name in ("a", "b", "c")]
    for _ in range(2):
        engine.expect(big)
        until(lambda: len(children()) == 2)
    before = {process.pid for process in children()}

    result = engine.write(order(tmp_path, [put(tmp_path, "0.parquet", rows_of(1))]), Counted())

    assert [r["id"] for r in written_rows(result)] == [1]
    assert {process.pid for process in children()} == before


def test_a_small_order_is_expected_by_one_process(engine: EmbeddedEngine, tmp_path: Path) -> None:
    engine.expect([put(tmp_path, "0.parquet", rows_of(1))])
    until(lambda: len(children()) == 1)
    result = engine.write(order(tmp_path, [put(tmp_path, "0.parquet", rows_of(1))]), Counted())
    assert (len(result.loaded), len(children())) == (1, 1)


def test_what_was_expected_and_did_not_come_leaves_no_process(others: None, tmp_path: Path) -> None:  # noqa: ARG001
    engine = EmbeddedEngine(processes=2)
    engine.expect([put(tmp_path, "0.parquet", rows_of(1))])
    engine.close()
    engine.expect([put(tmp_path, "0.parquet", rows_of(1))])
    assert children() == []


def test_a_process_that_dies_before_its_first_work_is_replaced(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [put(tmp_path, "0.parquet", rows_of(1))]
    engine.expect(files)
    until(lambda: len(children()) == 1)
    (process,) = children()
    process.kill()
    # Gone, and not yet taken note of: a process on its way out has no command line before its end can be seen.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert [f.key for f in engine.write(order(tmp_path, files), Counted()).loaded] == [files[0].key]


def test_a_process_killed_while_it_writes_leaves_the_batch_whole(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [put(tmp_path, f"{i:02}.parquet", rows_of(*range(50_000))) for i in range(40)]
    killed, turn = threading.Event(), threading.Lock()

    class KillsOne(Counted):
        def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
            super().__call__(files=files, rows=rows, stored_bytes=stored_bytes)
            with turn:
                if self.rows >= 500_000 and not killed.is_set():
                    killed.set()
                    children()[0].kill()

    counted = KillsOne()
    result = engine.write(order(tmp_path, files), counted)

    assert killed.is_set()
    assert sum(f.rows for f in result.loaded) == written(result).num_rows == 40 * 50_000
    assert {f.key: f.rows for f in result.loaded} == {f.key: 50_000 for f in files}
    assert {f.path for f in result.data_files} == data_files(tmp_path)
    assert (counted.files, counted.rows) == (40, 40 * 50_000)


def test_a_process_that_dies_amid_the_spans_of_a_file_costs_no_row(tmp_path: Path) -> None:
    engine = EmbeddedEngine(processes=2, span_bytes=1_000)
    rows = parquet_bytes(
        pa.table({"id": list(range(5_000)), "name": [f"n{i}" for i in range(5_000)]}), row_group_size=250
    )
    files = [put(tmp_path, "a.parquet", rows_of(1)), put(tmp_path, "big.parquet", rows)]
    killed: list[psutil.Process] = []
    one_at_a_time = threading.Lock()

    class KillsOne(Counted):
        def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
            super().__call__(files=files, rows=rows, stored_bytes=stored_bytes)
            # Bytes of the large file, so that its spans have begun.
            with one_at_a_time:
                if stored_bytes > len(rows_of(1)) and not killed:
                    killed.append(children()[0])
                    killed[0].kill()

    counted = KillsOne()
    try:
        result = engine.write(order(tmp_path, files), counted)
    finally:
        engine.close()

    assert killed
    assert [r["id"] for r in written_rows(result) if r["_file_path"].endswith("big.parquet")] == list(range(5_000))
    assert {f.key: f.rows for f in result.loaded} == {files[0].key: 1, files[1].key: 5_000}
    assert {f.path for f in result.data_files} == data_files(tmp_path)
    assert (counted.files, counted.rows) == (2, 5_001)


@pytest.mark.parametrize(("name", "fails"), [("kill-once", False), ("kill-always", True)])
def test_a_file_in_spans_fails_when_it_kills_its_process_every_time(tmp_path: Path, name: str, fails: bool) -> None:  # noqa: FBT001
    engine = EmbeddedEngine(processes=2, span_bytes=100)
    files = [put(tmp_path, "a.json", b'{"id": 1}\n'), put(tmp_path, f"{name}.json", b'{"id": 2}\n' * 1_000)]
    counted = Counted()
    try:
        result = engine.write(
            replace(order(tmp_path, files), reading=Reading(DiesAmid(), FormatOptions(FileFormat.JSON))), counted
        )
    finally:
        engine.close()

    assert [f.key for f in result.failed] == [files[1].key] * fails
    assert written(result).num_rows == (1 if fails else 1_001)
    assert {f.path for f in result.data_files} == data_files(tmp_path)
    assert counted.files == 2


def test_a_file_that_kills_its_process_every_time_fails_alone(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [put(tmp_path, f"{i}.parquet", rows_of(i)) for i in range(6)]
    files.insert(3, put(tmp_path, "kill-always.parquet", rows_of(7)))

    result = engine.write(order(tmp_path, files), Counted())

    assert sorted(r["id"] for r in written_rows(result)) == list(range(6))
    (failure,) = result.failed
    assert (failure.key, failure.category) == (files[3].key, Category.DATA_MALFORMED)
    assert "SIGKILL" in failure.message


def test_a_file_that_needs_too_much_memory_fails_alone(tmp_path: Path) -> None:
    engine = EmbeddedEngine(processes=1, memory_bytes=768 * 1024**2)
    # One value of hundreds of megabytes, a few kilobytes stored: it has to be decoded at once.
    long = "x" * 2**20
    huge = parquet_bytes(pa.table({"id": [1], "name": [long * 250]}), compression="zstd")
    files = [put(tmp_path, "a.parquet", rows_of(1)), put(tmp_path, "big.parquet", huge)]
    try:
        result = engine.write(order(tmp_path, files), Counted())
    finally:
        engine.close()

    assert [r["id"] for r in written_rows(result)] == [1]
    assert [(f.key, f.category) for f in result.failed] == [(files[1].key, Category.LIMIT_EXCEEDED)]


def test_a_process_that_gets_nowhere_is_stopped(tmp_path: Path) -> None:
    # Their start, too, must be over by then, on a machine that is slow at times.
    engine = EmbeddedEngine(processes=2, stall_timeout_s=12.0)
    files = [put(tmp_path, "a.parquet", rows_of(1)), put(tmp_path, "hang.parquet", rows_of(2))]
    try:
        result = engine.write(order(tmp_path, files), Counted())
    finally:
        engine.close()

    assert [r["id"] for r in written_rows(result)] == [1]
    assert [(f.key, f.category) for f in result.failed] == [(files[1].key, Category.LIMIT_EXCEEDED)]
    assert "12 s" in result.failed[0].message


def test_no_child_is_started_before_there_is_work_and_those_that_are_stay(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    assert children() == []
    files = [put(tmp_path, "a.parquet", rows_of(1))]

    engine.write(order(tmp_path, files), Counted())
    first = children()
    engine.write(replace(order(tmp_path, files), name_prefix="u"), Counted())

    assert len(first) == 1
    assert children() == first


@dataclass(frozen=True)
class NosyReader(FolderReader):
    """Says what the process that reads it is told: in the place of the file's rows."""

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        del file
        print("noise on standard output")
        limits = "memory", "core"
        import resource

        facts = [
            Path("/proc/self/environ").read_text().replace("\0", "\n"),
            "\n".join(sys.path),
            f"{limits} {resource.getrlimit(resource.RLIMIT_AS)[0]} {resource.getrlimit(resource.RLIMIT_CORE)[0]}",
            str(signal.getsignal(signal.SIGINT)),
        ]
        return parquet_bytes(pa.table({"id": [0, 1, 2, 3], "name": facts}), store_schema=False)[start:end]


@dataclass(frozen=True)
class DiesAmid(FolderReader):
    """Makes trouble only behind the middle of a file: its start is looked at before it is cut."""

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        path = Path(file.key.removeprefix("file://"))
        # What is looked at for a cut goes far; a span ends at the end of a line.
        if 2 * start >= file.size_bytes and (end or 0) <= file.size_bytes:
            return super().read(file, start, end)
        return path.read_bytes()[start:end]


def facts_of_a_child(engine: EmbeddedEngine, folder: Path) -> list[str]:
    result = engine.write(order(folder, [put(folder, "a.parquet", b"anything")], NosyReader()), Counted())
    return [row["name"] for row in written_rows(result)]


def test_a_child_knows_nothing_of_ours(
    engine: EmbeddedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secrets = ("DATABASE_URL", "SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "AUTOLOADER_HOME", "MY_TOKEN")
    for name in secrets:
        monkeypatch.setenv(name, "hidden-from-children")
    monkeypatch.setenv("AUTOLOADER_FAILPOINT", "hidden-from-children")
    monkeypatch.chdir(ROOT / "app")

    environ, path, limits, sigint = facts_of_a_child(engine, tmp_path)

    assert "hidden-from-children" not in environ
    names = {line.split("=", 1)[0] for line in environ.splitlines() if line}
    assert names == set(child_environment(os.environ))
    assert str(ROOT) in path.splitlines()
    assert str(ROOT / "app") not in path.splitlines()
    assert "" not in path.splitlines()
    assert limits.endswith(" 0")
    assert str(2**63 - 1) not in limits
    assert sigint == str(signal.SIG_IGN)
    assert capfd.readouterr().out == ""


def test_what_the_environment_says_of_memory_wins() -> None:
    kept = child_environment({})
    assert kept["MALLOC_ARENA_MAX"] == "2"
    assert int(kept["MALLOC_TRIM_THRESHOLD_"]) > int(kept["MALLOC_MMAP_THRESHOLD_"]) > 0

    given = {"MALLOC_TRIM_THRESHOLD_": "1", "MIMALLOC_PURGE_DELAY": "0", "MALLOC_ARENA_MAX": "8"}
    assert child_environment(given).items() >= given.items()


def test_ctrl_c_is_left_to_the_parent(engine: EmbeddedEngine, tmp_path: Path) -> None:
    files = [put(tmp_path, "a.parquet", rows_of(1))]
    engine.write(order(tmp_path, files), Counted())
    (child,) = children()

    child.send_signal(signal.SIGINT)
    engine.write(replace(order(tmp_path, files), name_prefix="u"), Counted())

    assert children() == [child]


def test_an_interrupted_order_leaves_nothing(engine: EmbeddedEngine, tmp_path: Path) -> None:
    # Large enough for data files of its own, and more than the other one, which never ends.
    files = [put(tmp_path, f"{i}.parquet", rows_of(*range(400_000))) for i in range(4)]
    files.append(put(tmp_path, "hang.parquet", rows_of(1)))
    main = threading.main_thread().ident or 0
    interrupted, turn = threading.Event(), threading.Lock()

    class Interrupts(Counted):
        def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
            super().__call__(files=files, rows=rows, stored_bytes=stored_bytes)
            # Two children tell at once, so the count may pass any number unseen.
            with turn:
                if files and self.files >= 2 and not interrupted.is_set():
                    interrupted.set()
                    signal.pthread_kill(main, signal.SIGINT)

    # Where the tests run in the background, the shell has had the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.write(order(tmp_path, files), Interrupts())
    finally:
        signal.signal(signal.SIGINT, before)

    assert data_files(tmp_path) == set()


def test_an_engine_whose_children_do_not_start_says_so(tmp_path: Path) -> None:
    engine = EmbeddedEngine(processes=1, memory_bytes=16 * 1024**2)
    try:
        with pytest.raises(EngineDiedError, match="does not start"):
            engine.write(order(tmp_path, [put(tmp_path, "a.parquet", rows_of(1))]), Counted())
    finally:
        engine.close()


def test_a_reader_that_a_child_cannot_load_is_no_fault_of_the_files(engine: EmbeddedEngine, tmp_path: Path) -> None:
    stranger = type("Stranger", (FolderReader,), {"__module__": "unheard_of"})
    sys.modules["unheard_of"] = types.ModuleType("unheard_of")
    vars(sys.modules["unheard_of"])["Stranger"] = stranger
    try:
        with pytest.raises(EngineDiedError, match="unheard"):
            engine.write(order(tmp_path, [put(tmp_path, "a.parquet", rows_of(1))], stranger()), Counted())
    finally:
        del sys.modules["unheard_of"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_one_who_is_told_ends_the_order_and_not_the_engine(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    files = [put(tmp_path, f"{i}.parquet", rows_of(i)) for i in range(4)]
    others = set(threading.enumerate())

    def listen(*, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        raise ZeroDivisionError(files, rows, stored_bytes)

    for _ in range(3):
        with pytest.raises(EngineDiedError):
            engine.write(order(tmp_path, files), listen)
    assert data_files(tmp_path) == set()
    assert len(engine.write(order(tmp_path, files), Counted()).loaded) == 4
    # Those threads that the error ended tell of it in this test, not in the next one.
    engine.close()
    for thread in set(threading.enumerate()) - others:
        if thread.name == "embedded-engine-child":
            thread.join(60)


def test_a_closed_engine_takes_no_order(tmp_path: Path) -> None:
    engine = EmbeddedEngine()
    engine.close()

    with pytest.raises(EngineDiedError, match="closed"):
        engine.write(order(tmp_path, [put(tmp_path, "a.parquet", rows_of(1))]), Counted())


def test_closing_ends_an_order_at_work(tmp_path: Path) -> None:
    engine = EmbeddedEngine(processes=1)
    files = [put(tmp_path, "hang.parquet", rows_of(1))]
    raised: list[BaseException] = []

    def write() -> None:
        try:
            engine.write(order(tmp_path, files), Counted())
        except EngineDiedError as error:
            raised.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    until(children)
    engine.close()
    thread.join(30)

    assert [type(error) for error in raised] == [EngineDiedError]
    assert children() == []


def test_two_threads_share_an_engine(engine: EmbeddedEngine, tmp_path: Path) -> None:
    found: dict[str, int] = {}

    def write(name: str) -> None:
        folder = tmp_path / name
        files = [put(folder, f"{i}.parquet", rows_of(*range(i))) for i in range(1, 11)]
        found[name] = len(written_rows(engine.write(order(folder, files), Counted())))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert found == {"a": 55, "b": 55, "c": 55}


PARENT = """
import sys
from pathlib import Path
from tests.unit.embedded.engine.test_processes import *
folder = Path(sys.argv[1])
files = [put(folder, "hang.parquet", rows_of(1)), put(folder, "b-hang.parquet", b"x" * 5_000_000)]
print("up", flush=True)
EmbeddedEngine(processes=2).write(order(folder, files), Counted())
"""


def test_children_vanish_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env=child_environment(os.environ),
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    until(lambda: len(children(parent.pid)) == 2)
    orphans = children(parent.pid)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    until(lambda: not any(is_alive(process.pid) for process in orphans))
