"""What the command line says of a catalog that fails: exit status, code, remedy, and no secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.events import RECORDS, event_files
from tests.support.fault_proxy import STALL_S, Answer, Cut, Exchange, Proxy
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world


@pytest.fixture
def world(tmp_path: Path, seaweed: Seaweed, rest_proxy: Proxy) -> World:
    """Files on disk, a table in the REST catalog behind its proxy."""
    rest_proxy.clear()
    made = make_world("local-rest", tmp_path, seaweed)
    environ = made.home.environ
    environ |= {name: value.replace(seaweed.rest_uri, rest_proxy.url) for name, value in environ.items()}
    made.land(event_files(0))
    return made


@dataclass(frozen=True)
class FallSilent:
    """Apply the request, and say nothing more to anybody for two minutes."""

    proxy: Proxy

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.apply()
        self.proxy.on(".*", "", Cut("stall", applied=False), times=None)
        await exchange.stall(STALL_S)


def test_a_catalog_that_falls_silent_over_a_commit(world: World, rest_proxy: Proxy, seaweed: Seaweed) -> None:
    rest_proxy.on("POST", r"/tables/t_\w+$", FallSilent(rest_proxy))
    done = world.home.run(
        *("load", world.source, "--to", world.table, "--output", "json", "--verbose"),
        environ={"AUTOLOADER_CATALOG_TIMEOUT_S": "10"},
    )
    assert (done.status, done.json["status"], done.json["code"]) == (1, "failed", "commit_unknown")
    (error,) = done.json["errors"]
    assert error["retryable"]
    assert "Run again" in error["message"]
    assert seaweed.secret_key not in done.stdout + done.stderr

    rest_proxy.clear()
    after = world.home.json("load", world.source, "--to", world.table)
    assert (after["status"], after["files"]["loaded"], after["rows"]["loaded"]) == ("success", 1, RECORDS)
    assert world.home.query(world.table, f"select count(*) n, count(distinct id) ids from {world.table}") == [
        {"n": RECORDS, "ids": RECORDS}
    ]


def test_what_a_catalog_quotes_is_not_repeated(world: World, rest_proxy: Proxy) -> None:
    said = b'{"error": {"message": "no: Bearer tokleak, /k?X-Amz-Signature=signleak", "type": "E", "code": 500}}'
    rest_proxy.on("GET", r"/tables/t_\w+$", Answer(500, applied=False, body=said), times=None)
    done = world.home.run("load", world.source, "--to", world.table, "--output", "json", "--verbose")
    assert (done.status, done.json["code"]) == (1, "catalog_unreachable")
    assert "/k?X-Amz-Signature=***" in done.json["detail"]
    assert "leak" not in done.stdout + done.stderr
