"""`python -m bench`: run cases, compare commits, write the page. `make bench` and `make bench-compare` call it."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import machine
from bench.cases import Bench, Case, chosen
from bench.contenders import Contender, last_line
from bench.loads import load_cases
from bench.parts import part_cases
from bench.places import ROOT, Places, Tree
from bench.report import comparison, report, write_page
from bench.results import Result, keep, kept
from bench.runner import run_case
from bench.store import Store

PAGE = ROOT / "docs" / "explanation" / "performance.md"
HERE_LABEL, THERE_LABEL = "here", "there"


def all_cases() -> list[Case]:
    """Every case, in the order of the report."""
    return [*load_cases(), *part_cases()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; 1 when the product itself failed somewhere."""
    given = _parser().parse_args(arguments)
    try:
        cases = chosen(all_cases(), given.cases)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    places = Places(given.folder)
    if given.verb == "list":
        for case in all_cases():
            print(f"{case.name:24}{case.title}{' (only by name)' if case.heavy else ''}")
        return 0
    if given.verb == "page":
        write_page(PAGE, _whole_report(places, given.scale))
        return 0
    bench = Bench(places, given.scale, Store())
    try:
        if given.verb == "compare":
            return _compare(bench, cases, given)
        return _run(bench, cases, given)
    finally:
        bench.store.stop()
        shutil.rmtree(places.homes, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("verb", choices=("run", "compare", "list", "page"))
    parser.add_argument("ref", nargs="?", help="compare: the commit to hold this tree against")
    parser.add_argument("--cases", default="", help="names of cases, or all")
    parser.add_argument("--runs", type=int, help="runs of each contender, instead of the case's own number")
    parser.add_argument("--scale", type=float, default=1.0, help="what to multiply the data with")
    parser.add_argument("--resume", action="store_true", help="leave out cases that this very commit has results of")
    parser.add_argument("--folder", type=Path, default=Places().folder, help="where everything is kept")
    return parser


def _run(bench: Bench, cases: Sequence[Case], given: argparse.Namespace) -> int:
    folder = bench.places.results(bench.scale)
    product_failed = False
    done: dict[str, Result] = {}
    for case in cases:
        before = kept(folder, case.name)
        if given.resume and before is not None and before.commit == machine.commit():
            print(f"{case.name}: measured already, at {before.measured_at}", flush=True)
            done[case.name] = before
            continue
        print(f"{case.name}: {case.title}", flush=True)
        # The product's own come first, so that what a prepared machine lacks shows before others are run.
        contenders = [*case.ours(bench, Tree()), *case.rivals(bench)]
        result = _measured(bench, case, contenders, given)
        product_failed |= any(name.startswith(Tree().label) for name in result.failed)
        keep(folder, result)
        done[case.name] = result
    text = report(all_cases(), done)
    print(f"\n{text}")
    (folder / "report.md").write_text(text)
    if bench.scale == 1:
        write_page(PAGE, _whole_report(bench.places, bench.scale))
        print(f"Written to {PAGE.relative_to(ROOT)}, with the newest figures of every other case.")
    return int(product_failed)


def _measured(bench: Bench, case: Case, contenders: Sequence[Contender], given: argparse.Namespace) -> Result:
    runs = given.runs or case.runs
    outcome = run_case(bench, case, contenders, runs=runs, say=lambda text: print(text, flush=True))
    return Result(
        case=case.name,
        commit=machine.commit(),
        measured_at=machine.now(),
        machine=machine.machine(),
        scale=bench.scale,
        runs=runs,
        samples=outcome.samples,
        failed=outcome.failed,
        load_before=outcome.load_before,
        load_after=outcome.load_after,
        seconds=outcome.seconds,
    )


def _whole_report(places: Places, scale: float) -> str:
    cases = all_cases()
    found = {case.name: kept(places.results(scale), case.name) for case in cases}
    return report(cases, {name: result for name, result in found.items() if result is not None})


def _compare(bench: Bench, cases: Sequence[Case], given: argparse.Namespace) -> int:
    if not given.ref:
        print("Say which commit: make bench-compare REF=main", file=sys.stderr)
        return 2
    try:
        folder = working_copy(bench.places, given.ref)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return _compare_with(bench, cases, given, folder)
    finally:
        _git(ROOT, "worktree", "remove", "--force", str(folder))


def _compare_with(bench: Bench, cases: Sequence[Case], given: argparse.Namespace, folder: Path) -> int:
    here, there = Tree(label=HERE_LABEL), Tree(folder, THERE_LABEL)
    print(f"{HERE_LABEL} is {machine.commit()}, {THERE_LABEL} is {given.ref} ({machine.commit(folder)}).", flush=True)
    parts = []
    failed = False
    for case in cases:
        print(f"{case.name}: {case.title}", flush=True)
        result = _measured(bench, case, [*case.ours(bench, here), *case.ours(bench, there)], given)
        failed |= bool(result.failed)
        parts.append(comparison(case, result, HERE_LABEL, THERE_LABEL))
    print("\n" + "\n".join(parts))
    return int(failed)


def working_copy(places: Places, ref: str, *, root: Path = ROOT) -> Path:
    """A working copy of that commit, made anew; it uses this one's libraries.

    Raises:
        ValueError: There is no such commit.
    """
    folder = places.trees / "there"
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _git(root, "worktree", "add", "--quiet", "--force", "--detach", str(folder), ref)
    return folder


def _git(root: Path, *arguments: str) -> None:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {arguments[0]}: {last_line(done.stderr)}")


if __name__ == "__main__":
    # So that servers and homes are removed also when somebody stops us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
