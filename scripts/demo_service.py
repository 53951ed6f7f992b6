"""The service in two minutes: start Prefect and the API, create, schedule, trigger, look at the rows, stop all of it.

Everything happens in ./demo-service, which is made anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo-service"
LANDING = DEMO / "landing"
FILES, RECORDS = 3, 1000
START_S = 180
RUN_S = 180


def say(text: str) -> None:
    """A line between the steps."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def land(first: int) -> None:
    """Write files of records, as a shop's tills would."""
    LANDING.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + FILES):
        records = (
            {"id": i * RECORDS + n, "timestamp": f"2026-03-01T12:{n % 60:02}:00Z", "user_id": n % 97,
             "event_type": ("view", "basket", "order")[n % 3], "value": n / 4}
            for n in range(RECORDS)
        )  # fmt: skip
        part = LANDING / f".batch_{i}.part"
        part.write_text("".join(json.dumps(one) + "\n" for one in records))
        part.rename(LANDING / f"batch_{i}.json")
    print(f"{FILES} files with {RECORDS:,} records each landed in {LANDING.relative_to(ROOT)}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def started(name: str, command: list[str], environ: dict[str, str], ready: str) -> Iterator[None]:
    """A process that answers at `ready`, until the block ends; what it writes is in `NAME.log`."""
    log = DEMO / f"{name}.log"
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=DEMO, env=environ, stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: answers(ready, process), START_S, f"{name} answers; see {log}")
        print(f"{name} answers after {time.monotonic() - begin:.0f} s: {ready}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"{name} is stopped")


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether it answers."""
    if process.poll() is not None:
        sys.exit(f"It ended with {process.returncode}.")
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own servers
            return True
    except OSError:
        return False


def until(look: Callable[[], Any], within_s: float, what: str) -> Any:  # noqa: ANN401 - whatever is looked for
    """What `look` gives as soon as it is something."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    sys.exit(f"Not within {within_s} s: {what}.")


class Api:
    """The service, as a client calls it."""

    def __init__(self, base: str) -> None:
        self._base = base

    def call(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        """Show the request, send it, show the answer in a line."""
        shown = f" -d '{json.dumps(body)}'" if body is not None else ""
        print(f"$ curl -X {method} {self._base}{path}{shown}", flush=True)
        answer = self.ask(method, path, body)
        if answer is not None:
            print(json.dumps(answer)[:400], flush=True)
        return answer

    def ask(self, method: str, path: str, body: Any = None) -> Any:  # noqa: ANN401 - JSON
        """The answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._base}{path}", data, headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{error.code}: {error.read().decode()}")
        return json.loads(text) if text else None


def main() -> None:
    """The walk."""
    begin = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    land(0)
    prefect_port, port = free_port(), free_port()
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AUTOLOADER_"))}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_HOME": str(DEMO / "prefect")}
    environ = {**plain, **quiet, "PYTHONPATH": str(ROOT)}
    api_url = f"http://127.0.0.1:{prefect_port}/api"
    service = {
        **environ,
        "PREFECT_API_URL": api_url,
        "DATABASE_URL": "sqlite:///./autoloader.db",
        "AUTOLOADER_LOCAL_ROOTS": str(LANDING),
    }
    say("Start a Prefect server and the API")
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect_port)]
    uvicorn = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port)]
    base = f"http://127.0.0.1:{port}"
    with (
        started("prefect-server", server, environ, f"{api_url}/health"),
        started("api", uvicorn, service, f"{base}/health"),
    ):
        walk(Api(base), api_url)
        say("The table, by the command line")
        query = "SELECT event_type, count(*) AS n, sum(value) AS total FROM shop.events GROUP BY event_type ORDER BY 1"
        for arguments in (["table", "shop.events"], ["table", "shop.events", "--sql", query]):
            subprocess.run([sys.executable, "-m", "app", *arguments], cwd=DEMO, env=service, check=True)
        say("Stop everything")
    print(f"\nDone in {time.monotonic() - begin:.0f} s. What is left is in {DEMO.relative_to(ROOT)}.")


def walk(api: Api, api_url: str) -> None:
    """Create, schedule, trigger, and wait for what the worker did."""
    until(lambda: api.ask("GET", "/health")["prefect"] == "connected", START_S, "Prefect is connected")
    api.call("GET", "/health")
    say("Create an ingestion that runs every minute")
    made = api.call(
        "POST",
        "/api/v1/ingestions",
        {
            "name": "Shop events",
            "source": {"type": "local", "path": str(LANDING), "file_pattern": "*.json"},
            "format": {"type": "json"},
            "destination": {"catalog": "local", "database": "shop", "table": "events"},
            "schedule": {"frequency": "custom", "cron_expression": "* * * * *", "timezone": "UTC"},
        },
    )
    path = f"/api/v1/ingestions/{made['id']}"
    page = f"{api_url.removesuffix('/api')}/deployments/deployment/{made['prefect_deployment_id']}"
    print(f"Its deployment in Prefect: {page}")

    say("Trigger it by hand; a worker of Prefect carries it out")
    run = api.call("POST", f"{path}/run")
    show(ended(api, path, lambda one: one["id"] == run["run_id"]))

    say("More files land; the schedule finds them")
    land(FILES)
    show(ended(api, path, lambda one: one["trigger"] == "scheduled" and one["files"]["loaded"] == FILES))

    say("Make it daily, pause it")
    api.call("PUT", path, {"schedule": {"frequency": "daily", "time": "14:30", "cron_expression": None}})
    api.call("POST", f"{path}/pause")


def ended(api: Api, path: str, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The run that is looked for, when it is over."""

    def look() -> dict[str, Any] | None:
        runs = api.ask("GET", f"{path}/runs")["items"]
        return next((one for one in runs if one["status"] not in {"queued", "running"} and is_it(one)), None)

    found: dict[str, Any] = until(look, RUN_S, "the run ends")
    return found


def show(run: dict[str, Any]) -> None:
    """A run in a line."""
    print(
        f"Run {run['id']} ({run['trigger']}, by {run['method']}): {run['status']}, "
        f"{run['files']['loaded']} files, {run['rows']['loaded']:,} rows"
    )


if __name__ == "__main__":
    main()
