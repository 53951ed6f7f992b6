"""One table's life: files land and change, loads are killed, stopped and woken, and every so often all is proven."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from app.domain.failpoints import FAILPOINTS, MOMENTS
from tests.crash.kill.evidence import LedgerFound, TableFound, fences, find_ledger, find_storage, find_table
from tests.crash.kill.figures import Figures
from tests.crash.kill.judge import EXPECTATIONS, differences, incomplete, orphaned, unsettled, unsound
from tests.crash.kill.places import LEASE_S, Place, Servers, make_place
from tests.crash.kill.runs import Run, Starter, Template, left_of
from tests.crash.kill.stage import Before, stage
from tests.crash.kill.versions import EXTRAS, FORMATS, Kind, Version

PROVE_EVERY = 10
# A run that nobody disturbed may lose its lease where the machine is too busy to renew it in time.
BUSY = frozenset({"lease_lost", "fenced"})
# What may end a run that others, or a signal, came between.
DISTURBED = BUSY | {"run_in_progress", "table_conflict", "already_committed", "engine_died", "commit_unknown"}
BUSY_TRIES = 5
# Of a command that nobody disturbs, and that a machine which stands still does not either.
QUIET_LEASE_S = 60.0
# Within so long of a named place a run comes to the next ones.
# Steps of the load's own process that most loads come to.
ELSEWHERE = {"file_read", "data_file_made", "data_file_written", "data_file_closed"}
RARE = {"lease_renewed", "ledger_rebuilt", "head_restored", "batch_restored", "outcome_looked_up"}
# No table here comes to so many snapshots that some go.
RARE |= {"expiry_noted", "expiry_request", "history_expired", "expired_listed"}
AIMS = tuple(step for step in FAILPOINTS if step not in ELSEWHERE | RARE)
LONGEST_AFTER_S = 0.1
KINDS = (Kind.GOOD, Kind.BAD, Kind.EMPTY)


class ViolationError(AssertionError):
    """Something is not as it must be."""


@dataclass(frozen=True)
class Plan:
    """What makes an episode: the same plan gives the same decisions, though not the same moments to the microsecond."""

    world: str
    seed: str
    kills: int
    policy: str = "ignore"
    # A defect that is planted, to see that it is found.
    defect: str = ""


@dataclass(frozen=True)
class Aim:
    """A moment in a run's life: so long after its start, or after it passed a named place."""

    place: str
    after_s: float


@dataclass
class Durations:
    """How long runs take, learned from those that nobody ended."""

    known: dict[bool, deque[float]] = field(
        default_factory=lambda: {False: deque([1.5], maxlen=9), True: deque([2.5], maxlen=9)}
    )

    def moment(self, dice: random.Random, *, fresh: bool) -> float:
        """A random moment of a run's life: all of it is hit, the end, where commits are, more often."""
        length = median(self.known[fresh])
        return dice.choice((dice.uniform(0, 1.1), dice.uniform(0.35, 1.25))) * length

    def learn(self, run: Run, *, fresh: bool) -> None:
        """Note a run, if it loaded something to its end."""
        if run.report.get("code") is None and run.report.get("files", {}).get("loaded"):
            self.known[fresh].append(run.duration_s)


class Episode:
    """Carries out one plan."""

    def __init__(self, plan: Plan, folder: Path, servers: Servers, template: Template) -> None:
        """Make the place; nothing lands and nothing runs yet.

        Args:
            plan: What to do.
            folder: Where it all happens; the evidence when something is wrong.
            servers: What the worlds share.
            template: What runs are forked from.
        """
        self.plan = plan
        self.figures = Figures()
        self._dice = random.Random(f"{plan.seed} {plan.world}")  # noqa: S311 - the same again for the same seed
        self._folder = folder
        self._place: Place = make_place(plan.world, folder, servers, self._dice)
        outputs = folder / "runs"
        outputs.mkdir()
        self._starter = Starter(template, self._place.home, self._place.environ, outputs, plan.defect)
        # With one core the engine has one child, and is quicker up.
        self._starter.cores = self._dice.choice((1, 1, 1, 2))
        self._ending = self._dice.choices(FORMATS, (6, 2, 2))[0]
        self._durations = Durations()
        self._step = 0
        # Kills before the last proof, and before the last one that held.
        self._proven = self._held = 0
        self._log = (folder / "steps.jsonl").open("a")

    # --- the whole of it ------------------------------------------------------------------------------------------

    def play(self, enough: Callable[[], bool] = lambda: False) -> Figures:
        """Kill as often as planned, or until it is `enough`, and prove.

        Raises:
            ViolationError: Something is not as it must be; the folder holds the evidence.
        """
        began = time.monotonic()
        try:
            # With a good file first, so that there is something to make a table of.
            self._land(self._dice, Kind.GOOD, Kind.GOOD, Kind.GOOD)
            if self._dice.random() < 0.5:
                self._leave_alone()
            while self.figures.kills < self.plan.kills and not enough():
                self._step += 1
                self._choose_step()()
                if self.figures.kills - self._proven >= PROVE_EVERY:
                    self._proven = self.figures.kills
                    self._prove()
            self._prove()
            self._prove_swept()
        finally:
            self._starter.stop_all()
            self._log.close()
            self.figures.seconds = time.monotonic() - began
        return self.figures

    def _choose_step(self) -> Callable[[], None]:
        steps: dict[Callable[[], None], int] = {
            self._kill_one: 76,
            self._kill_a_child: 8,
            self._kill_among_two: 8,
            self._wake_a_sleeper: 5,
            self._leave_alone: 3,
        }
        return self._dice.choices(list(steps), list(steps.values()))[0]

    # --- steps ------------------------------------------------------------------------------------------------------

    def _kill_one(self) -> None:
        fresh = not self.plan.defect and self._dice.random() < 0.04
        before = Before.of(self._place)
        aim, whole = self._aim(fresh=fresh), self._dice.random() < 0.5
        with self._landing():
            run = self._load(fresh=fresh, stop_at=aim.place)
            hit = self._reach(run, aim)
            if hit:
                run.send(signal.SIGKILL, whole=whole)
            self._settle(run)
        if hit and run.status == -signal.SIGKILL:
            self._count_kill(stage(self._place, before))
        else:
            self._durations.learn(run, fresh=fresh)
            self._expect(run, DISTURBED if hit else BUSY)
        self._note("one", pid=run.pid, aim=str(aim), whole=whole, fresh=fresh, status=run.status)

    def _aim(self, *, fresh: bool = False) -> Aim:
        """A random moment: half of them of all the time that a run takes, half of them soon after a named place.

        What takes a run's time is reading files; the moments about a commit would hardly be hit by time alone.
        """
        if self._dice.random() < 0.5:
            return Aim("", self._durations.moment(self._dice, fresh=fresh))
        place = f"{self._dice.choice(AIMS)}:{self._dice.choice(MOMENTS)}"
        return Aim(place, self._dice.uniform(0, LONGEST_AFTER_S))

    def _reach(self, run: Run, aim: Aim) -> bool:
        """Wait for the moment; False where the run ended before."""
        if aim.place:
            if not run.stops():
                return False
            run.send(signal.SIGCONT, whole=True)
        return not run.ends_within(aim.after_s)

    def _kill_a_child(self) -> None:
        moment = self._durations.moment(self._dice, fresh=False)
        with self._landing():
            run = self._load()
            hit = not run.ends_within(moment) and run.kill_child(self._dice)
            self._settle(run)
        if hit:
            self._count_kill("a child process only")
        self._expect(run, DISTURBED if hit else BUSY)
        self._note("child", pid=run.pid, moment=moment, hit=hit, status=run.status)

    def _kill_among_two(self) -> None:
        aims = self._aim(), self._aim()
        spare, whole = self._dice.random() < 0.6, self._dice.random() < 0.5
        with self._landing():
            first = self._load(stop_at=aims[0].place)
            hit = self._reach(first, aims[0])
            # Without a place of its own: it may never get there beside the first one, and that waits.
            second = self._load()
            if hit:
                # It goes on for a while beside the second one.
                first.ends_within(self._dice.uniform(0, 0.5))
                first.send(signal.SIGKILL, whole=whole)
            if not spare and not second.ends_within(aims[1].after_s):
                second.send(signal.SIGKILL, whole=whole)
            for run in (first, second):
                self._settle(run)
        self._count_ends(first, second)
        self._note("two", pids=[first.pid, second.pid], aims=[str(aim) for aim in aims], spare=spare)

    def _wake_a_sleeper(self) -> None:
        """A process is stopped for longer than its lease holds, and wakes up beside the one that took over."""
        aim, whole = self._aim(), self._dice.random() < 0.5
        asleep_s, die_s = LEASE_S + self._dice.uniform(0.1, 1.5), self._dice.uniform(0, 2 * LEASE_S)
        with self._landing():
            sleeper = self._load(stop_at=aim.place)
            slept = self._reach(sleeper, aim)
            sleeper.send(signal.SIGSTOP, whole=whole)
            stopped = time.monotonic()
            runs = [sleeper, self._load()]
            if not runs[1].ends_within(die_s) and self._dice.random() < 0.5:
                runs[1].send(signal.SIGKILL, whole=whole)
                self._settle(runs[1])
                runs.append(self._load())
            time.sleep(max(0.0, stopped + asleep_s - time.monotonic()))
            sleeper.wake_until_it_ends()
            for run in runs:
                self._settle(run)
        self.figures.counts["put to sleep beyond their lease and woken"] += slept
        self._count_ends(*runs)
        self._note("sleeper", pids=[run.pid for run in runs], aim=str(aim), asleep_s=asleep_s, whole=whole)

    def _leave_alone(self) -> None:
        with self._landing():
            run = self._load()
            self._settle(run)
        self._durations.learn(run, fresh=False)
        self._expect(run, BUSY)
        self._note("alone", pid=run.pid, status=run.status)

    def _count_ends(self, *runs: Run) -> None:
        for run in runs:
            if run.status == -signal.SIGKILL:
                self._count_kill("with another run at work")
            else:
                self._expect(run, DISTURBED)

    def _count_kill(self, where: str) -> None:
        self.figures.counts["kills"] += 1
        self.figures.stages[where] += 1

    # --- loads ------------------------------------------------------------------------------------------------------

    def _load(self, *, fresh: bool = False, stop_at: str = "") -> Run:
        again = ["--retry-failed"] if self._dice.random() < 0.3 else []
        # With --verbose it tells of its sweeps.
        arguments = (*self._load_arguments(), *again, "--verbose", "--output", "json")
        return self._starter.start(*arguments, fresh=fresh, stop_at=stop_at)

    def _load_arguments(self) -> tuple[str, ...]:
        place = self._place
        return "load", place.landing.store.source, "--to", place.table, "--on-file-change", self.plan.policy

    def _settle(self, run: Run) -> None:
        run.wait()
        counts, notes = self.figures.counts, run.notes
        counts["runs"] += 1
        counts["open batches found in the table"] += notes.count("is in the table; the ledger now says so")
        swept = [json.loads(line) for line in notes.splitlines() if '"swept"' in line and line.endswith("}")]
        counts["data files removed by recoveries"] += sum(event["data_files"] for event in swept)
        counts["open batches loaded again"] += notes.count("is not in the table; it is loaded again")

    def _expect(self, run: Run, allowed: frozenset[str]) -> str | None:
        """Its report says that it went through, or why it did not for a reason that is allowed; that reason."""
        report = run.report
        code = report.get("code")
        if not report or (code is not None and code not in allowed):
            self._violated([f"a run ended with {run.status} and {json.dumps(report)[:2000]}\n{run.notes[-2000:]}"])
        self.figures.counts["runs that went through" if code is None else f"runs that ended in {code}"] += 1
        return None if code is None else str(code)

    # --- landing ----------------------------------------------------------------------------------------------------

    def _landing(self) -> _Beside:
        """Files land before the block and while it is at work."""
        # The thread's own: what it draws may not depend on when.
        dice = random.Random(self._dice.random())  # noqa: S311 - the same again for the same seed
        for _ in range(dice.randint(0, 3)):
            self._land(dice, *dice.choices(KINDS, (20, 2, 1)))
        return _Beside(lambda: self._land_later(dice, dice.randint(0, 2)))

    def _land_later(self, dice: random.Random, count: int) -> None:
        for _ in range(count):
            time.sleep(dice.uniform(0, 0.5))
            self._land(dice, *dice.choices(KINDS, (20, 2, 1)))

    def _land(self, dice: random.Random, *kinds: Kind) -> None:
        landing = self._place.landing
        for kind in kinds:
            known = sorted(landing.history)
            if known and dice.random() < 0.15:
                name = dice.choice(known)
            else:
                # Names of all orders: no file may be missed because it sorts before one that was loaded.
                name = f"{dice.getrandbits(32):08x}.{self._ending}"
            number = len(landing.history.get(name, ())) + 1
            extras = tuple(e for e in EXTRAS[: min(len(EXTRAS), self._step // 15)] if dice.random() < 0.4)
            landing.land(Version(name, number, dice.choice((1, 3, 20, 150)), kind, extras))

    # --- proof ------------------------------------------------------------------------------------------------------

    def _prove(self) -> None:
        """A run that nobody disturbs, and then nothing may be missing, twice or mixed up."""
        self._quiet(*self._load_arguments(), "--retry-failed")
        found, ledger = self._table(), find_ledger(self._place)
        history = self._place.landing.by_key()
        self._violated(
            chain(
                unsound(history, found),
                unsettled(found, ledger, self.plan.policy),
                incomplete(history, found, ledger, EXPECTATIONS[self.plan.policy]),
                (f"process {pid} outlived its run" for pid in left_of(self._starter.sessions)),
            )
        )
        self._held = self.figures.kills
        self.figures.counts["proofs"] += 1

    def _prove_swept(self) -> None:
        """The program's own check says the same, and after a sweep nothing is left beside the table."""
        self._check()
        # What is younger than a lease is left alone.
        time.sleep(LEASE_S + 0.5)
        swept = self._quiet("sweep", self._place.table)
        found, ledger = self._table(), find_ledger(self._place)
        self._violated(chain(unsound(self._place.landing.by_key(), found), orphaned(find_storage(self._place), ledger)))
        self._count_table(found, ledger, swept)

    def _table(self) -> TableFound:
        try:
            return find_table(self._place)
        except (OSError, ValueError) as error:
            self._violated([f"the table cannot be read: {error!r}"])
            raise

    def _check(self) -> None:
        report = self._quiet("ledger", "check", self._place.table, self._place.landing.store.source, allow=(0, 1))
        found = {kind: {file["path"] for file in d["files"]} for kind, d in report["differences"].items() if d["count"]}
        expected = differences(self._place.landing.by_key(), find_ledger(self._place))
        if found != expected:
            self._violated([f"`ledger check` finds {found}, and expected is {expected}"])
        self._quiet("ledger", "check", self._place.table)

    def _quiet(self, *arguments: str, allow: tuple[int, ...] = ()) -> dict[str, Any]:
        """A command that nobody disturbs; its report."""
        # A sweep goes by the lease: what is younger it leaves alone.
        lease_s = LEASE_S if arguments[0] == "sweep" else QUIET_LEASE_S
        for _ in range(BUSY_TRIES):
            run = self._starter.start(*arguments, "--output", "json", lease_s=lease_s)
            self._settle(run)
            # 1 and 3: files failed that are bad.
            fine = run.status in (allow or ((0, 1, 3) if arguments[0] == "load" else (0,)))
            if self._expect(run, BUSY if fine or run.report.get("code") in BUSY else frozenset()) is None and fine:
                return run.report
        self._violated([f"{arguments} does not go through: {run.report}"])
        return {}

    def _count_table(self, found: TableFound, ledger: LedgerFound, swept: dict[str, Any]) -> None:
        counts = self.figures.counts
        counts["tables"] += 1
        counts["fences"] += fences(found)
        counts["takeovers from a dead or sleeping run"] += sum(
            "took over" in (run["error"] or "") for run in ledger.runs
        )
        counts["commits"] += sum("autoloader.batch-id" in summary for summary in found.summaries)
        counts["files that landed"] += len(self._place.landing.history)
        counts["versions that landed"] += sum(map(len, self._place.landing.history.values()))
        counts["rows in the tables"] += len(found.rows)
        counts["data files removed by the command"] += len(swept["data_files"])
        counts["manifests removed by the command"] += len(swept["manifests"])

    def _violated(self, faults: Iterator[str] | list[str]) -> None:
        """Raise when there are faults."""
        found = list(faults)
        if not found:
            return
        plan = self.plan
        shown = "\n  ".join(found[:20]) + (f"\n  … and {len(found) - 20} more" if len(found) > 20 else "")
        raise ViolationError(
            f"World {plan.world}, seed {plan.seed}, step {self._step}, after {self.figures.kills} kills:\n  {shown}\n"
            f"The last proof that held was after {self._held} kills. Evidence: {self._folder}"
        )

    def _note(self, step: str, **more: Any) -> None:
        """Write down what was done, for whoever looks for a cause."""
        line = {"step": self._step, "what": step, "at": time.time(), "kills": self.figures.kills, **more}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()


class _Beside:
    """Does something in a thread of its own while a block is at work; what goes wrong there is raised at its end."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._carry_out, args=(work,))

    def _carry_out(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by the other thread
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
