"""`python -m tests.crash.kill --kills N --seed S`: kill so often over all worlds, prove, and print the figures."""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception

from tests.crash.kill.defects import DEFECTS
from tests.crash.kill.episode import Episode, Plan, ViolationError
from tests.crash.kill.figures import Figures
from tests.crash.kill.judge import POLICIES
from tests.crash.kill.places import WORLDS, Servers
from tests.crash.kill.runs import Template
from tests.support.postgres import migrated_database, start_postgres, stop_postgres
from tests.support.seaweed import start_seaweed, stop_seaweed

# A table's life; then the next one begins, so that making tables is hit too.
KILLS_A_TABLE = 25


def main() -> int:
    """Run the command."""
    chosen = _arguments()
    seed = chosen.seed or secrets.token_hex(4)
    sys.stdout.write(f"Seed {seed}: {chosen.kills} kills in {', '.join(chosen.worlds)}.\n")
    sys.stdout.flush()
    folder = Path(tempfile.mkdtemp(prefix="autoloader-kill-"))
    series = Series(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        # What is at work is proven before it ends.
        signal.signal(number, lambda *_: series.stopped.set())
    with servers() as running, ThreadPoolExecutor(chosen.jobs) as workers:
        template = Template()
        try:
            for plan in plans(chosen, seed):
                workers.submit(series.play, plan, running, template)
            workers.shutdown(wait=True)
        finally:
            template.close()
    for line in series.figures.lines():
        sys.stdout.write(line + "\n")
    for violation in series.violations:
        sys.stdout.write(f"\nVIOLATION. {violation}\n")
    if not series.violations:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if series.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="how many processes to kill")
    parser.add_argument("--seed", default="", help="printed by an earlier run; without it a new one")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=WORLDS, help="catalog and ledger database")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="values of on_file_change")
    parser.add_argument("--jobs", type=int, default=2, help="tables at a time")
    parser.add_argument("--defect", choices=sorted(DEFECTS), default="", help="plant one, to see that it is found")
    return parser.parse_args()


@contextmanager
def servers() -> Iterator[Servers]:
    """The servers that the worlds share."""
    seaweed = start_seaweed()
    try:
        postgres = start_postgres()
        try:
            yield Servers(seaweed, postgres, migrated_database(postgres))
        finally:
            stop_postgres(postgres)
    finally:
        stop_seaweed(seaweed)


def plans(chosen: argparse.Namespace, seed: str) -> Iterator[Plan]:
    """As many tables as it takes, world by world."""
    tables = max(len(chosen.worlds), -(-chosen.kills // KILLS_A_TABLE))
    for number in range(tables):
        world = chosen.worlds[number % len(chosen.worlds)]
        # Every world comes to every policy.
        policy = chosen.policies[(number + number // len(chosen.worlds)) % len(chosen.policies)]
        kills = chosen.kills // tables + (number < chosen.kills % tables)
        yield Plan(world, f"{seed}-{number}", kills, policy, chosen.defect)


@dataclass
class Series:
    """Episodes, some at a time; after a violation no further one begins."""

    folder: Path
    figures: Figures = field(default_factory=Figures)
    violations: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.monotonic)

    def play(self, plan: Plan, running: Servers, template: Template) -> None:
        """Carry out one plan."""
        if self.stopped.is_set():
            return
        folder = self.folder / f"{plan.world}-{plan.seed}"
        episode = None
        try:
            episode = Episode(plan, folder, running, template)
            episode.play(self.stopped.is_set)
        except ViolationError as violation:
            self._stop(str(violation))
        except BaseException as error:
            self._stop(f"World {plan.world}, seed {plan.seed}: the harness failed: {''.join(format_exception(error))}")
            raise
        else:
            shutil.rmtree(folder)
        with self._lock:
            if episode is not None:
                self.figures.add(episode.figures)
            passed = time.monotonic() - self._began
            sys.stdout.write(f"{passed:6.0f} s  {self.figures.kills:5} kills  {plan.world} {plan.seed}\n")
            sys.stdout.flush()

    def _stop(self, violation: str) -> None:
        self.violations.append(violation)
        self.stopped.set()


if __name__ == "__main__":
    sys.exit(main())
