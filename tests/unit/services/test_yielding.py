from __future__ import annotations

import subprocess
import sys

from app.services.yielding import NICENESS
from tests.support.command import ROOT

SAYS = (
    "import os; from app.services.yielding import let_others_go_first as go; go(); go(); "
    "print(os.getpriority(os.PRIO_PROCESS, 0), os.popen('nice').read())"
)


def test_whoever_lets_others_go_first_and_what_it_starts_is_nice() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS], cwd=ROOT, capture_output=True, text=True, check=True, start_new_session=True
    )
    assert [int(word) for word in done.stdout.split()] == [NICENESS, NICENESS]
