"""A tree of small programs under the real head, in a process of its own: `python -m tests.support.small_tree HOME`.

What to run, and by which times, is in `HOME/tree.json`. A child writes its process id to `HOME/NAME.pid`, and so does
whatever it starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import AutoloaderError
from app.domain.redaction import Redactor
from app.supervision.children import ChildSpec, Look
from app.supervision.home import take_home
from app.supervision.marked import VARIABLE, marked_pids, send
from app.supervision.supervisor import SELF, Supervisor
from app.supervision.voices import Voices
from tests.support.command import ROOT
from tests.support.servers import is_alive
from tests.support.service_process import until

WITHIN_S = 150
# What each child begins with; `note` says that it is there, `below` starts a program in a session of its own.
PRELUDE = """
import os, signal, subprocess, sys, time
home, name = {home!r}, {name!r}
def note(what, text):
    with open(f'{{home}}/{{what}}.part', 'w') as file: file.write(str(text))
    os.rename(f'{{home}}/{{what}}.part', f'{{home}}/{{what}}')
def below(code, env=None):
    one = subprocess.Popen([sys.executable, '-S', '-c', code], start_new_session=True, env=env)
    note(f'{{name}}-below.pid', one.pid)
print(f'{{name}} is here', flush=True)
"""
# The process id goes last: whoever reads it knows that all else is done.
FOREVER = "note(f'{name}.pid', os.getpid())\ntime.sleep(600)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
WITH_ONE_BELOW = "below('import time; time.sleep(600)')\n" + FOREVER


def main() -> None:
    """Run the tree, as `autoloader up` does its own."""
    home = Path(sys.argv[1])
    mark = str(home)
    given: dict[str, Any] = json.loads((home / "tree.json").read_text())
    specs = [_spec(home, mark, one) for one in given["children"]]
    times: dict[str, float] = given["times"]
    names = (SELF, *(spec.name for spec in specs))
    voices = Voices(sys.stderr.write, Redactor(["very-secret-text"]), names, colours=False)

    def on_ready(pids: dict[str, int]) -> None:
        print(json.dumps(pids), flush=True)

    try:
        number = Supervisor(specs, mark, take_home(home), say=voices.say, on_ready=on_ready, **times).run()
    except AutoloaderError as error:
        print(json.dumps({"code": error.code, "message": error.message}), flush=True)
        sys.exit(1)
    sys.exit(128 + number)


def _spec(home: Path, mark: str, given: dict[str, Any]) -> ChildSpec:
    name = given["name"]
    code = PRELUDE.format(home=str(home), name=name) + given["code"]

    def there(file: str) -> Look:
        return Look(f"{name} to find {file}", lambda _: (home / file).exists())

    return ChildSpec(
        name,
        f"The {name}",
        (sys.executable, "-S", "-c", code),
        # What no process can be given makes the start itself fail.
        {"PYTHONPATH": str(ROOT), VARIABLE: mark, "FILLING": "x" * given.get("filling", 0)},
        needs=tuple(there(file) for file in given.get("needs", [])),
        looks=tuple(there(file) for file in given.get("looks", [f"{name}.pid"])),
        last=given.get("last", False),
    )


@dataclass
class SmallTree:
    """One that runs."""

    home: Path
    process: subprocess.Popen[str]

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def pid(self, what: str) -> int:
        """The process that wrote it down, when it has."""
        path = self.home / f"{what}.pid"
        until(path.exists, WITHIN_S, lambda: f"{what} is there\n{self.log}")
        return int(path.read_text())

    def another(self, what: str, pid: int) -> int:
        """The process that has taken the place of that one."""
        until(lambda: self.pid(what) != pid, WITHIN_S, lambda: f"{what} is there again\n{self.log}")
        return self.pid(what)

    def said(self, text: str, *, times: int = 1) -> None:
        """Wait until the log has it."""
        until(lambda: self.log.count(text) >= times, WITHIN_S, lambda: f"it says {text!r}\n{self.log}")

    def ready(self) -> dict[str, int]:
        """Wait for the document that tells that all is ready."""
        assert self.process.stdout is not None
        found: dict[str, int] = json.loads(self.process.stdout.readline())
        return found

    def ended(self) -> int:
        """Its exit status, when it has ended, with everything below it."""
        status = self.process.wait(WITHIN_S)
        self.all_gone()
        return status

    def all_gone(self) -> None:
        """Wait until nothing of it is left: nothing with its mark, and nobody who wrote himself down."""
        pids = [int(path.read_text()) for path in self.home.glob("*.pid")]
        until(
            lambda: not marked_pids(str(self.home)) and not any(map(is_alive, pids)),
            WITHIN_S,
            lambda: f"nothing of it is left\n{self.log}",
        )

    def clean(self) -> None:
        """Kill whatever is left."""
        self.process.kill()
        self.process.wait()
        # What dies meanwhile by itself is as welcome.
        send(marked_pids(str(self.home)), signal.SIGKILL)
        assert self.process.stdout is not None
        self.process.stdout.close()


def start(home: Path, *children: dict[str, Any], **times: float) -> SmallTree:
    """Start a tree of these children in that folder; `times` are the supervisor's."""
    home.mkdir(exist_ok=True)
    (home / "tree.json").write_text(json.dumps({"children": children, "times": times}))
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.small_tree", str(home)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    return SmallTree(home, process)


if __name__ == "__main__":
    main()
