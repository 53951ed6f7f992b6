"""The named steps of a run, and what a test lets happen before or after one of them. Without a test they are nothing.

A failpoint is written `STEP[:before|after][:kill|raise|pause|delay=SECONDS][:hit=N]`; several are separated by commas.
Left out, the moment is `after`, the action `kill`, and N, which of the times that the place is come to, is 1.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from app.domain.errors import InvalidFieldError

Step: TypeAlias = Literal[
    # --- looking around
    "source_listed",  # the source is opened, and its listing begun
    "table_read",  # the table's head: at first, under the lease, and for each try of a batch
    "lease_taken",
    "run_started",  # the run has its row
    "lease_renewed",  # in the heartbeat's thread
    # --- settling what is open
    "ledger_rebuilt",  # all of an ingestion
    "head_restored",  # where the table stands, and the number of the next batch
    "batch_restored",  # one batch of a rebuild
    "open_batches_read",
    "batch_looked_up",  # an open batch in the table, before and after the fence
    "table_fenced",
    "fence_request",  # between the guard's last check and the catalog, and between its answer and the library
    # --- planning
    "files_joined",  # from the first file of the listing to the last
    "marks_written",  # files that are not to be loaded
    "batch_claimed",
    # --- loading
    "schema_inferred",
    "table_drafted",
    "drift_drafted",  # once more, with what the files turned out to hold
    "child_started",  # a process of the engine, in the thread that looks after it
    "file_read",  # in the child
    "data_file_made",  # in the child
    "data_file_written",  # in the child: a piece of it
    "data_file_closed",  # in the child: it is whole, or uploaded
    "data_written",  # all rounds of a batch
    "rows_taken_out",  # earlier versions that the batch replaces; most replace none
    "manifest_written",
    # --- committing
    "footers_read",
    "commit_staged",  # the library has written its own manifests
    "commit_request",  # between the guard's last check and the catalog, and between its answer and the library
    "committed",  # all of it, the library's own retries included
    "outcome_looked_up",  # what became of a commit that was refused, or that nobody answered for
    "batch_closed",
    "close_committed",  # the same inside the ledger: its transaction's commit
    # --- afterwards
    "expiry_noted",  # which snapshots are to go
    "expiry_request",  # between the guard's last check and the catalog, and between its answer and the library
    "history_expired",  # all of it
    "hints_added",
    "expired_listed",  # by a sweep: the files of snapshots that went
    "leftovers_listed",  # by a sweep
    "leftover_removed",  # one file
    "run_finished",  # the run's row says how
    "lease_released",
]
Moment: TypeAlias = Literal["before", "after"]
Action: TypeAlias = Literal["kill", "raise", "pause", "delay"]

FAILPOINTS: tuple[Step, ...] = get_args(Step)
MOMENTS: tuple[Moment, ...] = get_args(Moment)
ACTIONS: tuple[Action, ...] = get_args(Action)

# Called with every place that a run comes to, as "commit_request:before"; from any thread.
Reach: TypeAlias = Callable[[str], None]


class InjectedError(Exception):
    """A failpoint raised this, as a defect of the program would: nothing knows it, so nothing handles it."""


class Failpoints:
    """Lets a test into the steps of a run. Used by several threads at once."""

    def __init__(self, reach: Reach | None = None, text: str = "") -> None:
        """Tell `reach` of every place; without it do nothing.

        Args:
            reach: For tests.
            text: What was parsed, to be handed on to a child process.
        """
        self._reach = reach
        self.text = text

    def step(self, name: Step) -> AbstractContextManager[None]:
        """The block is that step; what it raises goes its way, and the step then has no `after`."""
        return nullcontext() if self._reach is None else self._around(name)

    @contextmanager
    def _around(self, name: Step) -> Iterator[None]:
        self.before(name)
        yield
        self.after(name)

    def before(self, name: Step) -> None:
        """The step begins now, where a block would not do."""
        if self._reach is not None:
            self._reach(f"{name}:before")

    def after(self, name: Step) -> None:
        """The step was done."""
        if self._reach is not None:
            self._reach(f"{name}:after")


NO_FAILPOINTS = Failpoints()


@dataclass(frozen=True)
class Fault:
    """What is to happen at a place, the `hit`-th time that it is come to."""

    step: Step
    moment: Moment = "after"
    action: Action = "kill"
    seconds: float = 0.0
    hit: int = 1

    @property
    def place(self) -> str:
        """Where, in the words of `Reach`."""
        return f"{self.step}:{self.moment}"

    def happen(self) -> None:
        """Let it happen.

        Raises:
            InjectedError: That is what is to happen.
        """
        if self.action == "raise":
            raise InjectedError(f"A failpoint was set {self.moment} {self.step}.")
        if self.action == "delay":
            time.sleep(self.seconds)
        else:
            # Sent to this very thread, which then does nothing more before the signal has worked.
            signal.raise_signal(signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


def parse_failpoints(text: str) -> Failpoints:
    """The failpoints that `text` sets; "" sets none.

    Raises:
        InvalidFieldError: It is none of the form above, or names no step.
    """
    if not text.strip():
        return NO_FAILPOINTS
    return Failpoints(_Faults(tuple(parse_fault(part) for part in text.split(","))), text)


def parse_fault(text: str) -> Fault:
    """One failpoint. Raises as `parse_failpoints`."""
    name, *words = text.strip().split(":")
    step = next((s for s in FAILPOINTS if s == name), None)
    if step is None:
        raise InvalidFieldError(f"AUTOLOADER_FAILPOINT: no step is called {name!r}; there are {', '.join(FAILPOINTS)}.")
    fault = Fault(step)
    for word in words:
        fault = _with(fault, word, text)
    return fault


def _with(fault: Fault, word: str, text: str) -> Fault:
    """The failpoint with what one more word says of it."""
    name, _, number = word.partition("=")
    for moment in MOMENTS:
        if word == moment:
            return replace(fault, moment=moment)
    for action in ACTIONS:
        if word == action != "delay":
            return replace(fault, action=action)
    if name == "delay" and _is_number(number):
        return replace(fault, action="delay", seconds=float(number))
    if name == "hit" and number.isdecimal() and int(number) > 0:
        return replace(fault, hit=int(number))
    raise InvalidFieldError(
        f"AUTOLOADER_FAILPOINT: {word!r} in {text.strip()!r} is none of before, after, kill, raise, pause, "
        "delay=SECONDS, hit=N."
    )


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


class _Faults:
    """Counts how often each place is come to, and lets happen what is due."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults = faults
        self._hits: Counter[str] = Counter()
        self._counting = threading.Lock()

    def __call__(self, place: str) -> None:
        with self._counting:
            self._hits[place] += 1
            hit = self._hits[place]
        for fault in self._faults:
            if fault.place == place and fault.hit == hit:
                fault.happen()
