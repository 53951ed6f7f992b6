"""Where everything that the measuring makes lies: one folder that git ignores."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FOLDER = ROOT / ".bench"
UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Places:
    """The folder's parts, and what makes the environments."""

    folder: Path = FOLDER
    uv: Path = UV

    def data(self, scale: float) -> Path:
        """Data sets of one scale."""
        return self.folder / "data" / f"{scale:g}"

    @property
    def environments(self) -> Path:
        """Environments of peers."""
        return self.folder / "env"

    @property
    def homes(self) -> Path:
        """Homes that contenders load into; nothing there is kept."""
        return self.folder / "homes"

    @property
    def trees(self) -> Path:
        """Working copies of other commits."""
        return self.folder / "trees"

    def results(self, scale: float) -> Path:
        """What was measured at one scale, a file a case."""
        return self.folder / "results" / f"{scale:g}"


@dataclass(frozen=True)
class Tree:
    """A working copy of the product, run with this process's Python and libraries."""

    folder: Path = ROOT
    label: str = "autoloader"

    @property
    def folder_name(self) -> str:
        """The label as the name of a folder."""
        return self.label.replace(" ", "-")

    @property
    def python(self) -> tuple[str, ...]:
        """The interpreter; the folder that it is started in is no source of modules."""
        return (sys.executable, "-P")

    @property
    def environ(self) -> dict[str, str]:
        """Where its modules are. Compiled ones are kept, as those of an installed program are."""
        return {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": ""}

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The command `autoloader` of this tree."""
        return (*self.python, "-m", "app", *arguments)

    def named(self, what: str) -> str:
        """The name of a contender that does a part of the product's work, or does it otherwise."""
        return f"{self.label}: {what}"

    def probe(self, name: str, *arguments: str) -> tuple[str, ...]:
        """A probe that measures parts of this tree from within; the probe itself is this tree's or another's."""
        return (*self.python, str(HERE / "probes" / f"{name}.py"), *arguments)
