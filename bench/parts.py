"""Cases that measure parts: how a command starts, discovery, the ledger, claims and commits."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from bench.cases import Bench, Case
from bench.contenders import Contender, run_or_fail
from bench.figures import Bar, How
from bench.places import HERE, Tree

IMPORTS = "imports of pyiceberg and obstore"
BARE = "bare Typer program"
MILLION = 1_000_000
NEW = 1_000
FEW = 10_000
GROWTH_MB = 100


def part_cases() -> list[Case]:
    """The cases."""
    return [*_starts(), _ledger(), *_discoveries(), _claims(), *_commits(), _scheduling(), _worker(), _up()]


# --- starting -------------------------------------------------------------------------------------------------------


def _starts() -> list[Case]:
    return [
        Case(
            "no-new",
            "`load` with nothing new, 1,000 files known",
            _nothing_new,
            lambda _: [Contender(IMPORTS, (sys.executable, "-c", "import pyiceberg.catalog.sql, obstore"))],
            (Bar("`load` with nothing new, 1,000 files known", "autoloader", "wall_s", 1.5, (IMPORTS,)),),
            runs=7,
            warm_up=True,
        ),
        Case(
            "help",
            "`autoloader --help`",
            lambda _, tree: [Contender(tree.label, tree.command("--help"), tree.environ)],
            lambda _: [Contender(BARE, (sys.executable, str(HERE / "probes" / "bare_typer.py"), "--help"))],
            (Bar("`autoloader --help`", "autoloader", "wall_s", 2.0, (BARE,)),),
            runs=11,
            warm_up=True,
        ),
    ]


def _nothing_new(bench: Bench, tree: Tree) -> list[Contender]:
    load = tree.command("load", str(bench.data_set("known").source), "--to", "bench.events", "--output", "json")
    environ = {**tree.environ, "AUTOLOADER_HOME": "{home}"}

    def prepare(home: Path) -> None:
        run_or_fail(load, home, environ)

    return [Contender(tree.label, load, environ, prepare)]


# --- discovery ------------------------------------------------------------------------------------------------------


def _source(bench: Bench, count: int, *, remote: bool) -> tuple[str, dict[str, str]]:
    if not remote:
        return str(bench.keys(count)), {}
    return bench.store.put_keys(count), bench.store.environ


def _known_ledger(bench: Bench, tree: Tree, count: int, every: int, *, remote: bool = False) -> Path:
    """A ledger that knows the files but each so-manieth; made once in a run of the harness, and only read."""
    kind = "s3" if remote else "local"
    folder = bench.places.homes / "ledgers" / f"{tree.folder_name}-{kind}-{count}-{every}"
    database = folder / "ledger.db"
    if not database.exists():
        source, key = _source(bench, count, remote=remote)
        folder.mkdir(parents=True)
        run_or_fail(tree.probe("discovery", "make", source, str(database), str(every)), folder, {**tree.environ, **key})
    return database


def _discovery_case(name: str, count: int, *, remote: bool, runs: int = 2, heavy: bool = False) -> Case:
    where = "S3" if remote else "local"
    listing, few = "autoloader: listing", f"autoloader: {FEW:,} known"
    bars = [
        Bar(f"discovery, {where}, {count:,} known, {new} new", f"autoloader: {new} new", "wall_s", 1.3, (listing,))
        for new in ("0", f"{NEW:,}")
    ]
    growth = f"its memory, {where}, from {FEW:,} to {count:,} known, MB"
    bars.append(Bar(growth, "autoloader: 0 new", "peak_mb", GROWTH_MB, (few,), How.DIFFERENCE))
    return Case(
        name,
        f"discovery of {count:,} files, {where}",
        partial(_discover, count=count, remote=remote),
        bars=tuple(bars),
        runs=runs,
        heavy=heavy,
        note="Times are those of the work alone; memory is that of the whole process.",
    )


def _discoveries() -> list[Case]:
    return [
        _discovery_case("discovery", MILLION, remote=False),
        _discovery_case("discovery-s3", MILLION // 10, remote=True),
        _discovery_case("discovery-s3-1m", MILLION, remote=True, runs=1, heavy=True),
    ]


def _discover(bench: Bench, tree: Tree, *, count: int, remote: bool) -> list[Contender]:
    count, few = bench.scaled(count, least=2_000), bench.scaled(FEW, least=1_000)
    source, key = _source(bench, count, remote=remote)
    few_source, _ = _source(bench, few, remote=remote)
    environ = {**tree.environ, **key}

    def probe(name: str, verb: str, *arguments: str) -> Contender:
        return Contender(tree.named(name), tree.probe("discovery", verb, *arguments), environ, clocks_itself=True)

    def known(count: int, every: int) -> str:
        return str(_known_ledger(bench, tree, count, every, remote=remote))

    return [
        probe("bare listing", "bare", source),
        probe("listing", "listing", source),
        probe("0 new", "known", source, known(count, 0)),
        probe(f"{NEW:,} new", "known", source, known(count, max(2, count // NEW))),
        probe(f"{FEW:,} known", "known", few_source, known(few, 0)),
    ]


# --- ledger ---------------------------------------------------------------------------------------------------------


def _ledger() -> Case:
    return Case(
        "ledger",
        "hot paths, 100,000 files: listing, reading the ledger, claiming",
        _hot_paths,
        note="Times are those of the work alone, without the start of the process.",
    )


def _hot_paths(bench: Bench, tree: Tree) -> list[Contender]:
    count = bench.scaled(MILLION // 10, least=1_000)
    source, _ = _source(bench, count, remote=False)
    database = str(_known_ledger(bench, tree, count, 0))
    parts = {
        "listing": ("listing", source),
        "ledger rows": ("ledger", database),
        "the same rows by SQLite's module": ("rows", database),
        "listing and claims": ("claim", source, "{home}/ledger.db"),
    }
    return [
        Contender(tree.named(name), tree.probe("discovery", *arguments), tree.environ, clocks_itself=True)
        for name, arguments in parts.items()
    ]


def _claims() -> Case:
    few = f"autoloader: {FEW:,} claimed"
    return Case(
        "claim",
        "planning and claiming 1,000,000 new files",
        _claim,
        bars=(
            Bar("planning and claiming 1,000,000 new files", "autoloader", "wall_s", 3.0, ("autoloader: listing",)),
            Bar(
                "its memory, from 10,000 to 1,000,000 new, MB",
                "autoloader",
                "peak_mb",
                GROWTH_MB,
                (few,),
                How.DIFFERENCE,
            ),
        ),
        runs=1,
        note="Times are those of the work alone, without the start of the process.",
    )


def _claim(bench: Bench, tree: Tree) -> list[Contender]:
    many, _ = _source(bench, bench.scaled(MILLION, least=2_000), remote=False)
    few, _ = _source(bench, bench.scaled(FEW, least=1_000), remote=False)
    parts = {
        tree.named("listing"): ("listing", many),
        tree.label: ("claim", many, "{home}/ledger.db"),
        tree.named(f"{FEW:,} claimed"): ("claim", few, "{home}/ledger.db"),
    }
    return [
        Contender(name, tree.probe("discovery", *arguments), tree.environ, clocks_itself=True)
        for name, arguments in parts.items()
    ]


# --- commits --------------------------------------------------------------------------------------------------------


def _commits() -> list[Case]:
    return [
        _commit_case("commits", 200, ("ours", "foreign")),
        _commit_case("commits-10000", 10_000, ("ours",), heavy=True),
        _commit_case("commits-10000-foreign", 10_000, ("foreign",), heavy=True),
    ]


def _commit_case(name: str, count: int, kinds: tuple[str, ...], *, heavy: bool = False) -> Case:
    ours, foreign = "autoloader: our table", "autoloader: another's table"
    bars = []
    if "ours" in kinds:
        work = f"{count:,} commits on a table we made: the last against the first"
        bars.append(Bar(work, ours, "last_s", 2.0, (ours,), against_figure="first_s"))
    if "foreign" in kinds:
        work = f"{count:,} commits on another's table: the last, seconds"
        bars.append(Bar(work, foreign, "last_s", float("inf"), how=How.VALUE))
    names = {"ours": "our table", "foreign": "another's table"}

    def make(bench: Bench, tree: Tree) -> list[Contender]:
        times = str(bench.scaled(count, least=4))
        return [
            Contender(
                tree.named(names[kind]),
                tree.probe("commits", kind, "{home}", times),
                tree.environ,
                clocks_itself=True,
            )
            for kind in kinds
        ]

    return Case(name, f"{count:,} commits one after the other", make, bars=tuple(bars), runs=1, heavy=heavy)


# --- scheduling -----------------------------------------------------------------------------------------------------


def _scheduling() -> Case:
    calls = {"create": "create an ingestion with its deployment", "trigger": "trigger a run"}
    bars = []
    for name, work in calls.items():
        ours, bare = f"{name}_ms", f"bare_{name}_ms"
        against = f"{work}, against the bare call of Prefect's client"
        bars.append(Bar(against, "autoloader", ours, 1.3, ("autoloader",), against_figure=bare))
        bars.append(Bar(f"{work}, milliseconds", "autoloader", ours, float("inf"), how=How.VALUE))

    def make(bench: Bench, tree: Tree) -> list[Contender]:
        times = str(bench.scaled(40, least=3))
        command = tree.probe("scheduling", "{home}", times)
        return [Contender(tree.label, command, tree.environ, clocks_itself=True)]

    return Case(
        "scheduling",
        "create and trigger with a Prefect server on the same machine",
        make,
        bars=tuple(bars),
        runs=3,
        note="Medians of calls that take turns with the bare ones, on a server with SQLite.",
    )


# --- the service of one machine -------------------------------------------------------------------------------------


def _up() -> Case:
    figures = (
        ("until the API answers, seconds", "api_s", 5.0),
        ("until all is ready, seconds", "ready_s", 25.0),
        ("memory of the tree, MB", "tree_mb", 600.0),
        ("until all has ended, seconds", "stop_s", 10.0),
    )

    def make(_bench: Bench, tree: Tree) -> list[Contender]:
        return [Contender(tree.label, tree.probe("up", "{home}"), tree.environ, clocks_itself=True)]

    return Case(
        "up",
        "`autoloader up`, in a new folder",
        make,
        bars=tuple(
            Bar(f"`autoloader up`: {what}", "autoloader", name, most, how=How.VALUE) for what, name, most in figures
        ),
        runs=3,
        warm_up=True,
        note="API, Prefect server, worker and their head, stopped by Ctrl-C; memory is proportional (PSS).",
    )


def _worker() -> Case:
    def beside(work: str, figure: str, limit: float) -> Bar:
        return Bar(work, "autoloader", figure, limit, ("autoloader",), against_figure=f"stock_{figure}")

    def value(work: str, figure: str, limit: float = float("inf")) -> Bar:
        return Bar(work, "autoloader", figure, limit, how=How.VALUE)

    bars = (
        beside("CPU time of all runs, against Prefect's own worker", "cpu_s", 0.3),
        value("CPU time of a run, seconds", "cpu_s_a_run"),
        value("the same by Prefect's own worker, seconds", "stock_cpu_s_a_run"),
        beside("time until all are over, against Prefect's own worker", "took_s", 1.0),
        value("from trigger to running, seconds", "to_running_s", 2.0),
        value("the same by Prefect's own worker, seconds", "stock_to_running_s"),
        value("an idle worker's share of a core", "idle_worker"),
        value("the Prefect server's share of a core for an idle worker", "idle_server"),
    )

    def make(bench: Bench, tree: Tree) -> list[Contender]:
        runs = str(bench.scaled(50, least=3))
        command = tree.probe("worker", "{home}", runs)
        return [Contender(tree.label, command, tree.environ, clocks_itself=True)]

    return Case(
        "worker",
        "50 triggered runs of one small file each, by a worker with room for 4",
        make,
        bars=bars,
        runs=1,
        note="CPU time is that of each worker's whole life, with all that it starts; the server has SQLite.",
    )
