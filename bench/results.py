"""What was measured, a file a case, so that a run that was broken off goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Sample


@dataclass(frozen=True)
class Result:
    """A case that was measured: when, of which commit, and on which machine."""

    case: str
    commit: str
    measured_at: str
    machine: Mapping[str, str]
    scale: float
    runs: int
    samples: Mapping[str, Sequence[Sample]]
    failed: Mapping[str, str]
    load_before: float
    load_after: float
    seconds: float


def keep(folder: Path, result: Result) -> None:
    """Write it, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.case}.json"
    making = path.with_suffix(".making")
    making.write_text(json.dumps(asdict(result), indent=1))
    making.replace(path)


def kept(folder: Path, case: str) -> Result | None:
    """What was last kept of the case; None where there is nothing."""
    path = folder / f"{case}.json"
    return Result(**json.loads(path.read_text())) if path.exists() else None
