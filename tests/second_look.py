"""Run the tests; where next to nothing failed, look at what failed once more, and say so.

Usage: python -m tests.second_look [ARGUMENTS OF PYTEST]. The exit status is pytest's; 0 also where what failed passed
when it was looked at again, by itself, in a new process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

# More than that is no chance.
AT_MOST = 2
# They draw what they do at random: what they find once is found.
NEVER = ("tests/crash/", "tests/model/")
# How pytest calls the parts of a test; whoever ended with its process has none.
PARTS = ("setup", "call", "teardown")


@dataclass
class Failures:
    """What failed: a plugin of pytest."""

    parts: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of what failed, and in which part."""
        if report.failed:
            self.parts.setdefault(report.nodeid, report.when or "")

    @property
    def may_be_chance(self) -> bool:
        """Whether a second look is worth it."""
        return 0 < len(self.parts) <= AT_MOST and not any(
            name.startswith(NEVER) or part not in PARTS for name, part in self.parts.items()
        )


def main(arguments: list[str]) -> int:
    """Run the tests; pytest's exit status."""
    environment = dict(os.environ)
    failures = Failures()
    status = int(pytest.main(arguments, plugins=[failures]))
    if status != pytest.ExitCode.TESTS_FAILED or not failures.may_be_chance:
        return status
    names = list(failures.parts)
    told = "\n".join(f"  {name}" for name in names)
    print(f"\nSo few failed that it may be chance. Each is run once more, by itself:\n{told}", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", *names], env=environment, check=False)
    if again.returncode == 0:
        print(
            f"\nUNSTEADY: failed once, passed once. The first failure is told in full above; it is a defect of the "
            f"test or of the product, and somebody has to mend it:\n{told}",
            flush=True,
        )
    return again.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
