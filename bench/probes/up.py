"""`autoloader up` from its start to its end.

`up.py HOME` starts it below HOME, stops it by SIGINT when all is ready, and prints as JSON the seconds until the API
answers, until all is ready and until all has ended, and the memory of the tree.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.measuring import MB, tree, tree_memory_bytes

WITHIN_S = 180.0
# So long after it is ready its memory is looked at: what it does at the start has come to rest.
REST_S = 5.0
LOOK_EVERY_S = 0.05


def main() -> None:
    """Start, look, stop."""
    home = Path(sys.argv[1])
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "app", "up", "--port", str(port), "--free-ports", "--output", "json"]
    environ = {**os.environ, "AUTOLOADER_HOME": str(home)}
    with (home / "up.log").open("wb") as log, (home / "up.json").open("wb") as answer:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=home, env=environ, stdout=answer, stderr=log)
    figures = {"api_s": _until(lambda: _answers(port), process) - began}
    figures["ready_s"] = _until(lambda: (home / "up.json").stat().st_size > 0, process) - began
    time.sleep(REST_S)
    figures["tree_mb"] = tree_memory_bytes(process.pid) / MB
    below = list(tree(process.pid))
    stopped = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(WITHIN_S)
    figures["stop_s"] = time.monotonic() - stopped
    left = [pid for pid in below if Path(f"/proc/{pid}").exists()]
    if process.returncode or left:
        raise SystemExit(f"It ended with {process.returncode} and left {left}; see {home / 'up.log'}.")
    print(json.dumps(figures))


def _until(look: Callable[[], bool], process: subprocess.Popen[bytes]) -> float:
    """When it was so."""
    deadline = time.monotonic() + WITHIN_S
    while not look():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise SystemExit(f"It ended with {process.poll()}, or was not ready in time.")
        time.sleep(LOOK_EVERY_S)
    return time.monotonic()


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=5):
        return True
    return False


if __name__ == "__main__":
    main()
