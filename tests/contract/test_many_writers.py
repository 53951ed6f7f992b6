"""Who only reads is answered while many wait to write."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from tests.contract.api_rigs import database_rig

PATH = "/api/v1/ingestions"
MANY = 30
# Less than a writer waits for the lock, and more than a busy machine takes.
SOON_S = 15


def test_a_reader_does_not_wait_for_them(tmp_path: Path) -> None:
    with database_rig(tmp_path) as rig, ThreadPoolExecutor(MANY) as pool:
        url = str(rig.client.base_url)

        def make(number: int) -> httpx.Response:
            document = {
                "name": f"Number {number}",
                "source": {"path": str(tmp_path)},
                "destination": {"database": "d", "table": f"t{number}"},
            }
            return httpx.post(f"{url}{PATH}", json=document, timeout=180, trust_env=False)

        with closing(sqlite3.connect(tmp_path / "autoloader.db", timeout=60, isolation_level=None)) as other:
            other.execute("begin immediate")
            asked = [pool.submit(make, number) for number in range(MANY)]
            for _ in range(5):
                assert httpx.get(f"{url}{PATH}", timeout=SOON_S, trust_env=False).json()["items"] == []
            assert not any(one.done() for one in asked)
            other.execute("rollback")
        assert {one.result().status_code for one in asked} == {httpx.codes.CREATED}
        assert len(rig.client.get(PATH).json()["items"]) == MANY
