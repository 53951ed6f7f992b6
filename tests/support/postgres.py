"""A real PostgreSQL server on loopback, whose databases have a locale that does not sort by bytes."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from app.persistence import postgres
from tests.support.command import ROOT
from tests.support.servers import free_ports, shared

ADMIN = "admin"
# Sorts "a" before "B" and leaves punctuation out at first: nothing that relies on bytes goes well by chance.
ICU_LOCALE = "en-US"
# The first that can make such databases.
OLDEST = 15
TRIES = 3
START_TIMEOUT_S = 60
# As the program has it, and as tests in whose process it is at work have it: a machine that stands still is no server
# that is away.
CONNECT_TIMEOUT_S = postgres.CONNECT_TIMEOUT_S
PATIENT_CONNECT_TIMEOUT_S = 60
# For connections that have been closed until they are over at the server, too.
LEAVE_S = 60


@dataclass(frozen=True)
class Postgres:
    """A server, and the user who may do everything there."""

    folder: str
    port: int
    password: str

    def url(self, database: str, *, user: str = ADMIN, password: str = "") -> str:
        """A value of DATABASE_URL."""
        return f"postgresql://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, *, options: str = "") -> str:
        """Make an empty database; the address for it is given back."""
        name = f"d{uuid.uuid4().hex[:16]}"
        self.execute(f"create database {name} {options}")
        return self.url(name)

    def copy_database(self, url: str) -> str:
        """Make a database as the one of that address, which nobody may be connected to any more."""
        deadline = time.monotonic() + LEAVE_S
        while True:
            try:
                return self.create_database(options=f"template {url.rpartition('/')[2]}")
            except psycopg.errors.ObjectInUse:
                # The server itself waits five seconds for those who are just leaving.
                if time.monotonic() > deadline:
                    raise

    def create_user(self, *, options: str = "") -> tuple[str, str]:
        """Make a user who may log in; its name and password are given back."""
        name, password = f"u{uuid.uuid4().hex[:16]}", secrets.token_hex(8)
        self.execute(f"create user {name} password '{password}' {options}")
        return name, password

    def execute(self, statement: str, url: str = "") -> list[tuple[Any, ...]]:
        """Run one statement outside of a transaction, on the database of an address; its rows."""
        with psycopg.connect(url or self.url("postgres"), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """End it as a crash would: nothing is written that was not written yet."""
        _control(self.folder, "stop", "-m", "immediate")

    def start(self) -> None:
        """Start it again, where it was."""
        _control(self.folder, "start", "-l", f"{self.folder}/log", "-t", str(START_TIMEOUT_S))


@contextmanager
def shared_postgres(folder: Path) -> Iterator[Postgres]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    with shared(folder, Postgres, start_postgres, stop_postgres) as server:
        yield server


def start_postgres() -> Postgres:
    """Start a server of one's own on a free port; `stop_postgres` ends it."""
    server = Postgres(tempfile.mkdtemp(prefix="postgres-"), 0, secrets.token_hex(8))
    password_file = Path(server.folder, "password")
    password_file.write_text(server.password)
    if os.geteuid() == 0:
        for path in (Path(server.folder), password_file):
            shutil.chown(path, _user(), pwd.getpwnam(_user()).pw_gid)
    _run(
        "initdb", f"--pgdata={server.folder}/data", f"--username={ADMIN}", f"--pwfile={password_file}",
        "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu",
        f"--icu-locale={ICU_LOCALE}", "--no-sync",
    )  # fmt: skip
    for _ in range(TRIES):
        # A port that was free may be taken by the time the server binds it.
        server = Postgres(server.folder, free_ports(1)[0], server.password)
        _configure(server)
        try:
            server.start()
        except subprocess.CalledProcessError as error:
            last = f"{error.stdout}\n{Path(server.folder, 'log').read_text(errors='replace')[-4000:]}"
        else:
            return server
    stop_postgres(server)
    pytest.fail(f"PostgreSQL did not start in {TRIES} tries:\n{last}")


def _configure(server: Postgres) -> None:
    lines = {
        "listen_addresses": "'127.0.0.1'",
        "port": server.port,
        # None: their paths have to be short, and a folder for what is temporary may be deep.
        "unix_socket_directories": "''",
        "max_connections": 120,
        # A killed server loses nothing that the kernel has; only a machine that loses its power does.
        "fsync": "off",
        "shared_buffers": "32MB",
        # What a client is told is looked at.
        "lc_messages": "'C'",
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    Path(server.folder, "data", "postgresql.auto.conf").write_text(text)


def stop_postgres(server: Postgres) -> None:
    """End the server and remove its data; it need not run any more."""
    if Path(server.folder, "data", "postmaster.pid").exists():
        server.kill()
    shutil.rmtree(server.folder, ignore_errors=True)


def _control(folder: str, *arguments: str) -> None:
    _run("pg_ctl", *arguments, "-w", "-D", f"{folder}/data")


def _run(program: str, *arguments: str) -> None:
    """Run a program of the server; as another user where we are root, which the server refuses to run as."""
    # Written to a file: the server keeps its starter's pipe open for as long as it runs.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(_programs() / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            user=_user() if os.geteuid() == 0 else None,
            check=False,
            start_new_session=True,
        )
        output.seek(0)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, program, output.read())


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _programs() -> Path:
    versions = [int(path.name) for path in Path("/usr/lib/postgresql").glob("[0-9]*") if (path / "bin/initdb").exists()]
    if max(versions, default=0) < OLDEST:
        pytest.fail(
            f"PostgreSQL {OLDEST} or later is missing in /usr/lib/postgresql. `scripts/postgres.sh` installs it as "
            "root; on Debian and Ubuntu: apt-get install postgresql."
        )
    return Path("/usr/lib/postgresql", str(max(versions)), "bin")


def migrated_database(server: Postgres) -> str:
    """Make a database with the ledger's tables, as a person would; the address for it is given back."""
    url = server.create_database()
    done = alembic("upgrade", "head", url=url)
    assert done.returncode == 0, done.stderr
    return url


def alembic(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run alembic by hand on the database of that address."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
