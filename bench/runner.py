"""Runs a case: its contenders in turn, round by round, each beginning a round once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.cases import Bench, Case
from bench.contenders import Contender, Stand, WrongResultError, folder_name
from bench.figures import Sample


@dataclass
class Outcome:
    """What a case came to: samples by contender, and why a contender has none or fewer."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    # The system's load average before and after: what else ran shows in it.
    load_before: float = 0.0
    load_after: float = 0.0
    seconds: float = 0.0


def run_case(
    bench: Bench, case: Case, contenders: Sequence[Contender], *, runs: int, say: Callable[[str], None]
) -> Outcome:
    """Run every contender `runs` times, interleaved.

    A contender that fails, or whose result is wrong, is left out from there, and the outcome says why.
    """
    outcome = Outcome(load_before=os.getloadavg()[0])
    began = time.monotonic()
    folder = bench.places.homes / case.name
    shutil.rmtree(folder, ignore_errors=True)
    stands = [Stand(contender, folder / folder_name(contender.name)) for contender in contenders]
    try:
        for number in range(-1 if case.warm_up else 0, runs):
            turn = max(number, 0) % len(stands)
            for stand in (*stands[turn:], *stands[:turn]):
                if number < stand.contender.most_runs and stand.contender.name not in outcome.failed:
                    _run_one(stand, outcome, counts=number >= 0, say=say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = time.monotonic() - began
    outcome.load_after = os.getloadavg()[0]
    return outcome


def _run_one(stand: Stand, outcome: Outcome, *, counts: bool, say: Callable[[str], None]) -> None:
    name = stand.contender.name
    try:
        sample = stand.run()
    except WrongResultError as error:
        outcome.failed[name] = str(error)
        outcome.samples.pop(name, None)
        say(f"  {name}: failed, {error}")
        return
    if counts:
        outcome.samples.setdefault(name, []).append(sample)
    say(f"  {name}: {sample['wall_s']:.2f} s, CPU {sample['cpu_s']:.2f} s, {sample['peak_mb']:.0f} MB")
