"""`python -m tests.load`: put the service under load in both worlds, print what came of it, write the page.

`make load` calls it. The exit status is 1 where a promise did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench import machine
from bench.places import ROOT
from bench.report import write_page
from tests.load.report import BEGIN, broken, report
from tests.load.scenario import Outcome, Say, Size, play
from tests.load.worlds import WORLDS

PAGE = ROOT / "docs" / "explanation" / "limits.md"
# Of what is known of the machine, what matters here.
SHOWN = ("processor", "cores", "memory", "system", "Python")
# Settings of whoever runs this, which would make another world of it.
FOREIGN = ("AUTOLOADER_", "PREFECT_", "PYICEBERG_", "DATABASE_URL", "SECRET_KEY")


def main() -> int:
    """Run the command."""
    given = _arguments()
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:6.0f} s  {text}\n")
        sys.stdout.flush()

    folder = Path(tempfile.mkdtemp(prefix="autoloader-load-"))
    say(f"Logs and data go to {folder}.")
    outcomes = [found for name in given.worlds if (found := _played(name, folder, given.scale, say)) is not None]
    text = report(outcomes, _machine(given.scale, time.monotonic() - began))
    sys.stdout.write(f"\n{text}")
    failed = len(outcomes) < len(given.worlds) or any(broken(one) for one in outcomes)
    if given.scale == 1 and len(outcomes) == len(WORLDS):
        write_page(PAGE, text, begin=BEGIN)
        sys.stdout.write(f"\nWritten to {PAGE.relative_to(ROOT)}.\n")
    if failed:
        sys.stdout.write(f"\nNot all that is promised held; the logs are in {folder}.\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def _played(name: str, folder: Path, scale: float, say: Say) -> Outcome | None:
    """What came of a world; None where it broke, which is told and does not keep the next one from its turn."""
    say(f"World {name}.")
    try:
        with WORLDS[name](folder / name) as world:
            say(f"{world.title}: up.")
            return asyncio.run(play(world, folder / f"{name}-landing", Size().scaled(scale), say))
    except Exception:  # noqa: BLE001 - the outermost frame of a world
        say(f"World {name} broke, and counts as not held:\n{traceback.format_exc()}")
        return None
    finally:
        say(f"World {name} is over, and its servers are stopped.")


def _machine(scale: float, took_s: float) -> dict[str, str]:
    known = machine.machine()
    rows = {name: known[name] for name in SHOWN}
    rows |= {"measured": machine.now(), "commit": machine.commit(), "took": f"{took_s / 60:.0f} minutes"}
    return rows if scale == 1 else {**rows, "scale": f"{scale:g}: these figures say nothing about the promises"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="what to multiply the ingestions with")
    parser.add_argument("--worlds", nargs="+", choices=tuple(WORLDS), default=tuple(WORLDS))
    return parser.parse_args()


if __name__ == "__main__":
    # So that servers and homes are removed also when somebody stops us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
