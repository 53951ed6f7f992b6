"""No secret comes to light: odd ones go through every path that takes one, and are then looked for everywhere.

An odd text that is no secret goes the same ways. It has to be found in each place: a search that finds nothing proves
nothing.
"""

from __future__ import annotations

import base64
import html
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import pytest

from tests.support.canaries import Canary, CommandLines, command_lines, files_of, rows_of, sightings
from tests.support.canary_walk import (
    CANARIES,
    CONTROL,
    ONCE,
    PATH,
    Servers,
    Walk,
    catalogs,
    secret,
    tells_requests,
    tells_secrets,
    walk_by_commands,
    walk_by_loads,
    walk_on_postgresql,
    walk_over_http,
    walk_with_keys,
    walk_without_prefect,
    what_prefect_says,
    with_user,
)
from tests.support.command import Home
from tests.support.events import event_files
from tests.support.fake_gcs import FakeGcs
from tests.support.postgres import Postgres
from tests.support.prefect_server import DATABASE, start_prefect
from tests.support.receivers import receiver
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports, stop
from tests.support.service_process import ServiceProcess, until

pytestmark = [pytest.mark.xdist_group("canaries"), pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed, fake_gcs: FakeGcs, postgres: Postgres, migrated: str
) -> Iterator[Mapping[str, bytes]]:
    """Everything that can be read after secrets went all ways: kind of place → what is in it."""
    folder = tmp_path_factory.mktemp("canaries")
    with ExitStack() as stack:
        auth = "canary:" + secret("Prefect's password")
        prefect = start_prefect(auth)
        stack.callback(stop, prefect)
        (port,) = free_ports(1)
        bucket = f"canaries-{os.getpid()}"
        for server in (seaweed, fake_gcs):
            server.create_bucket(bucket)
            server.put(bucket, event_files(0))
        hooks = stack.enter_context(receiver(tells_secrets))
        teller = stack.enter_context(receiver(tells_requests))
        servers = Servers(seaweed, fake_gcs, prefect, hooks, bucket, teller, f"http://127.0.0.1:{port}")
        lines = stack.enter_context(command_lines())
        environ = {
            "SECRET_KEY": secret("SECRET_KEY_PREVIOUS"),
            "PREFECT_API_URL": with_user(prefect.api_url, auth),
            "PREFECT_API_AUTH_STRING": auth,
            "AUTOLOADER_ALLOWED_HOSTS": "127.0.0.1",
            "AUTOLOADER_LOCAL_ROOTS": "/",
            "AUTOLOADER_DIRECT_RUNS": "3",
            **ONCE,
            **catalogs(teller),
        }
        walk = Walk(ServiceProcess(folder / "home", environ))
        stack.callback(walk.service.stop)
        # They need nothing of what the others do.
        pool = stack.enter_context(ThreadPoolExecutor(2))
        beside = [
            pool.submit(walk_by_loads, walk, servers),
            pool.submit(walk_without_prefect, walk, folder, servers),
        ]
        walk.service.start()
        until(lambda: walk.call("GET", "/health").json()["prefect"] == "connected", 180, "Prefect is connected")
        token = Home(walk.service.home, {"SECRET_KEY": environ["SECRET_KEY"]}).run(
            "tokens", "create", "--role", "admin"
        )
        walk.token = token.stdout.strip()
        until(lambda: walk.call("GET", PATH, token="x").status_code == 401, 60, "tokens are asked for")
        walk_over_http(walk, servers)
        walk_by_commands(walk, servers)
        database = walk.service.home / "autoloader.db"
        walk.places["log of the database"] = Path(f"{database}-wal").read_bytes()
        walk.places["Prefect's answers"] = what_prefect_says(prefect)
        walk.service.stop()
        walk_with_keys(walk)
        url = environ["PREFECT_API_URL"]
        walk_on_postgresql(walk, servers, postgres, postgres.copy_database(migrated), url)
        for one in beside:
            one.result()
        # So that its database stands still; its files stay.
        prefect.kill()
        kept = Path(prefect.folder)
        yield {
            **walk.places,
            "log": walk.service.log.encode(),
            "home": files_of(walk.service.home, leave_out={"secret.key"}),
            "rows": rows_of(database),
            "Prefect's files": files_of(kept),
            "Prefect's rows": rows_of(kept / DATABASE),
            "answers": b"\n".join(walk.answers),
            "webhooks": b"\n".join(one.message.head + one.message.body for one in hooks.received),
            "command lines": lines.content,
            "output of commands": b"\n".join(walk.output),
            "token": walk.token.encode(),
        }


# --- what is found -------------------------------------------------------------------------------------------------


# What says of a run or an ingestion nothing but numbers and ids.
BY_ID = {
    "metrics": b"autoloader_runs",
    "event stream": b"run.failed",
    "token": b"autoloader_",
    "log of up": b"The worker is ready.",
    "home of up": b"autoloader",
    "home of loads": b"landing",
}


def test_no_secret_is_found_where_the_control_is(places: Mapping[str, bytes]) -> None:
    blind = [
        place
        for place, content in places.items()
        if (BY_ID[place] not in content if place in BY_ID else not sightings({place: content}, [CONTROL]))
    ]
    assert blind == []
    found = dict(places)
    token = found.pop("token").decode()
    made = [
        Canary("token", token, (token.removeprefix("autoloader_"),)),
        Canary("key", "secretsecret", ("secretsecret",)),
    ]
    seen = sightings(found, [*CANARIES.values(), *made])
    assert not seen, "\n".join(seen)


# --- the search itself ---------------------------------------------------------------------------------------------


ENCODINGS: Mapping[str, Callable[[str], str]] = {
    "as it is": str,
    "in an address": lambda text: quote(text, safe=""),
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "in JSON with its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "as Python shows it": repr,
    "as Python shows its bytes": lambda text: repr(text.encode()),
    "in a page": html.escape,
    "in base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in base64 without its end": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "in base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "in base64 behind a name": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    "in base64 behind another one": lambda text: base64.b64encode(f"some:{text}!".encode()).decode(),
    "cut off": lambda text: text[: text.index("HeadZw") + 8],
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)
def test_a_secret_is_found_in_every_encoding(encode: Callable[[str], str]) -> None:
    for one in (*CANARIES.values(), CONTROL):
        text = f"GET /?x={encode(one.text)} 200"
        assert sightings({"log": text.encode()}, [one]), (one.name, text)
        others = [other for other in CANARIES.values() if other is not one]
        assert not sightings({"log": text.encode()}, others)


def in_a_file(folder: Path, text: str) -> bytes:
    (folder / "deep").mkdir()
    (folder / "deep" / "some.log").write_text(f"x {text}")
    return files_of(folder)


def in_the_name_of_a_file(folder: Path, text: str) -> bytes:
    (folder / quote(text, safe="")).touch()
    return files_of(folder)


def in_a_row(folder: Path, text: str) -> bytes:
    with database(folder, text) as path:
        return rows_of(path)


def in_the_log_of_a_database(folder: Path, text: str) -> bytes:
    with database(folder, text) as path:
        # Not where it is in the end.
        assert not sightings({"file": path.read_bytes()}, [CONTROL])
        return Path(f"{path}-wal").read_bytes()


def in_a_long_row(folder: Path, text: str) -> bytes:
    with database(folder, "." * 4_050 + text) as path:
        return rows_of(path)


@contextmanager
def database(folder: Path, text: str) -> Iterator[Path]:
    path = folder / "some.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute('create table "some table" (a, b)')
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.execute('insert into "some table" values (1, ?)', (text,))
        connection.commit()
        yield path


def on_a_command_line(_folder: Path, text: str) -> bytes:
    with command_lines() as lines:
        with subprocess.Popen([sys.executable, "-c", "input()", text], stdin=subprocess.PIPE) as process:
            until(lambda: sightings({"command lines": lines.content}, [CONTROL]), 60, "it is seen")
            process.communicate(b"\n")
        return lines.content


def test_what_others_on_the_machine_look_for_is_not_seen() -> None:
    sleeps = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(sleeps, stdin=subprocess.PIPE) as root,
        subprocess.Popen([*sleeps, CONTROL.text], stdin=subprocess.PIPE) as beside,
        command_lines() as lines,
    ):
        until(lambda: sightings({"command lines": lines.content}, [CONTROL]), 60, "it is seen from above both")
        below = CommandLines(root.pid)
        below.look()
        assert below.content
        assert not sightings({"command lines": below.content}, [CONTROL])
        for process in (root, beside):
            process.communicate(b"\n")


def in_a_webhook(_folder: Path, text: str) -> bytes:
    with receiver() as hooks:
        httpx.post(hooks.url(), json={"a": text}, trust_env=False, timeout=60)
        return b"".join(one.message.head + one.message.body for one in hooks.received)


PLANTED = (
    in_a_file,
    in_the_name_of_a_file,
    in_a_row,
    in_a_long_row,
    in_the_log_of_a_database,
    on_a_command_line,
    in_a_webhook,
)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_secret_is_found_in_every_kind_of_place(plant: Callable[[Path, str], bytes], tmp_path: Path) -> None:
    assert sightings({"place": plant(tmp_path, CONTROL.text)}, [CONTROL])
