"""The machine that measures, and the versions of what is measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.environments import SHOWN, versions
from bench.places import ROOT

OWN = ("pyiceberg", "pyarrow", "duckdb", "obstore", "isal", "sqlalchemy", "typer")
ENVIRONMENTS = ("duckdb", "pyarrow", "polars", "dlt", "floor")


def machine() -> dict[str, str]:
    """What the machine is, for people."""
    processors = Path("/proc/cpuinfo").read_text()
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*: (.+)", processors)
    return {
        "processor": model[1].strip() if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in OWN),
        "peers": "; ".join(_environment(name) for name in ENVIRONMENTS),
    }


def _environment(name: str) -> str:
    found = versions(name)
    ordered = [library for library in SHOWN if library in found]
    return f"{name}: " + ", ".join(f"{library} {found[library]}" for library in ordered)


def commit(folder: Path = ROOT) -> str:
    """The commit that a working copy stands at, with a plus where files differ from it."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "app", "bench") else "")


def now() -> str:
    """Now, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
