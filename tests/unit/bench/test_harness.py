"""The cases run, at a size that takes no time, with the product, the floor and those peers whose libraries are here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.__main__ import all_cases, main, working_copy
from bench.cases import Bench, Case
from bench.contenders import Contender, WrongResultError
from bench.environments import PEERS
from bench.loads import check_rows
from bench.places import ROOT, Places, Tree
from bench.report import report
from bench.results import kept
from bench.runner import Outcome, run_case
from bench.store import Store

SCALE = 0.0005
# Their libraries are also the product's own.
HERE = ("floor", "duckdb", "pyarrow")
FAILING = (sys.executable, "-c", "raise SystemExit('no such thing')")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("bench")
    for name in HERE:
        environment = folder / "env" / name
        (environment / "bin").mkdir(parents=True)
        python = environment / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        wanted = hashlib.sha256((PEERS / f"{name}.txt").read_bytes()).hexdigest()
        (environment / "requirements.sha256").write_text(wanted)
    # An environment that would have to be made is one that cannot be made.
    bench = Bench(Places(folder, uv=Path("/nowhere/uv")), SCALE, Store())
    yield bench
    bench.store.stop()


def case(name: str) -> Case:
    return next(c for c in all_cases() if c.name == name)


def ran(bench: Bench, name: str, contenders: list[Contender]) -> Outcome:
    return run_case(bench, case(name), contenders, runs=1, say=lambda _: None)


LOADS = [
    ("small", {"autoloader", "autoloader: first load", "floor (duckdb)", "floor (pyarrow)"}),
    ("csv", {"floor (duckdb)", "floor (pyarrow)", "duckdb", "pyarrow"}),
    ("parquet", {"floor (duckdb)", "floor (pyarrow)", "pyarrow"}),
    ("small-s3", {"autoloader", "floor (pyarrow)", "duckdb"}),
]


@pytest.mark.parametrize(("name", "wanted"), LOADS, ids=[name for name, _ in LOADS])
def test_all_load_the_same_rows(bench: Bench, name: str, wanted: set[str]) -> None:
    contenders = [*case(name).ours(bench, Tree()), *case(name).rivals(bench)]
    outcome = ran(bench, name, [c for c in contenders if c.name in wanted])
    assert outcome.failed == {}
    assert set(outcome.samples) == wanted
    samples = [sample for those in outcome.samples.values() for sample in those]
    assert all(sample["wall_s"] > 0 for sample in samples)
    # A command that ended before it was looked at has no peak.
    assert any(sample["peak_mb"] > 0 for sample in samples)


@pytest.mark.parametrize("name", ["no-new", "ledger", "discovery", "claim", "commits"])
def test_parts_are_measured(bench: Bench, name: str) -> None:
    outcome = ran(bench, name, [*case(name).ours(bench, Tree()), *case(name).rivals(bench)])
    assert outcome.failed == {}
    subjects = {bar.subject for bar in case(name).bars} | {r for bar in case(name).bars for r in bar.against}
    assert subjects <= set(outcome.samples)
    assert all(bar.figure in s for bar in case(name).bars for s in outcome.samples[bar.subject])
    if name == "discovery":
        assert [outcome.samples[f"autoloader: {n} new"][0]["new"] for n in ("0", "1,000")] == [0, 1000]


def test_a_peer_without_an_environment_is_left_out_with_a_reason(bench: Bench) -> None:
    polars = [c for c in case("small").rivals(bench) if c.name == "polars"]
    outcome = ran(bench, "small", polars)
    assert outcome.samples == {}
    assert "uv" in outcome.failed["polars"]


def test_a_contender_that_fails_is_left_out_and_the_others_go_on(bench: Bench) -> None:
    good = Contender("good", (sys.executable, "-c", "pass"))
    outcome = run_case(bench, case("help"), [Contender("bad", FAILING), good], runs=3, say=lambda _: None)
    assert outcome.failed == {"bad": "ended with 1: no such thing"}
    assert len(outcome.samples["good"]) == 3


def test_contenders_take_turns_and_homes_are_restored(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"import os; n = open('state', 'a+'); n.seek(0); open({str(log)!r}, 'a').write(f'{{os.environ[\"WHO\"]}}'"
    code += "f'{n.read()} '); n.write('!')"
    contenders = [
        Contender(who, (sys.executable, "-c", code), {"WHO": who}, prepare=lambda home: _write(home / "state", "s"))
        for who in "ab"
    ]
    warm = Case("turns", "turns", lambda *_: [], warm_up=True)
    outcome = run_case(bench, warm, contenders, runs=2, say=lambda _: None)
    assert log.read_text() == "as bs as bs bs as "
    assert [len(s) for s in outcome.samples.values()] == [2, 2]


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_wrong_rows_are_found(bench: Bench) -> None:
    data = bench.data_set("parquet")
    paths = [str(path) for path in data.source.iterdir()]
    check_rows(paths, data.rows, data.id_sum)
    for rows, ids in ((data.rows + 1, data.id_sum), (data.rows, data.id_sum + 1)):
        with pytest.raises(WrongResultError, match="not"):
            check_rows(paths, rows, ids)
    with pytest.raises(WrongResultError):
        check_rows([], data.rows, data.id_sum)


def test_a_run_keeps_its_results_and_goes_on_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--cases", "help", "--runs", "1", "--scale", str(SCALE), "--folder", str(tmp_path)]
    assert main(arguments) == 0
    places = Places(tmp_path)
    found = kept(places.results(SCALE), "help")
    assert found is not None
    assert report([case("help")], {"help": found}) == (places.results(SCALE) / "report.md").read_text()
    assert not places.homes.exists()
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 0
    assert "measured already" in capsys.readouterr().out
    assert main(["run", "--cases", "nothing"]) == 2


def test_two_trees_are_measured_beside_each_other(bench: Bench) -> None:
    trees = [Tree(ROOT, "here"), Tree(ROOT, "there")]
    outcome = ran(bench, "help", [c for tree in trees for c in case("help").ours(bench, tree)])
    assert set(outcome.samples) == {"here", "there"}
    assert outcome.failed == {}


def test_a_working_copy_is_that_of_the_commit(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for text in ("one", "two"):
        (root / "file").write_text(text)
        subprocess.run([*git, "add", "file"], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", text], check=True)
    places = Places(tmp_path / "bench")
    for ref, text in (("HEAD~1", "one"), ("HEAD", "two")):
        assert (working_copy(places, ref, root=root) / "file").read_text() == text
    with pytest.raises(ValueError, match="git worktree"):
        working_copy(places, "nowhere", root=root)
